// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "proxy/tls/record_budget.h"
#include "proxy/tls/record_cipher.h"
#include "proxy/tls/record_fault.h"

namespace postern::tls {

// Who takes the handshake messages of an authentication inside the connection (RFC 8446 section
// 4.6.2). Called from inside RecordLayer::Open; may seal.
class AuthMessages {
 public:
  // The longest body that a message of this type may have now; nullopt: it has no place.
  virtual std::optional<size_t> MostBytes(uint8_t type) const = 0;
  // One whole message that was admitted; what is wrong with it.
  virtual std::optional<RecordFault> Take(base::ByteSpan message) = 0;
  // Whether an answer has begun and not ended: nothing may come between its messages.
  virtual bool IsInside() const = 0;

 protected:
  ~AuthMessages() = default;
};

// Both directions of a TLS 1.3 connection after its handshake (RFC 8446 sections 4.6, 5 and 6):
// records in, plaintext out and the reverse; alerts, KeyUpdates and tickets are dealt with on the
// way. It neither reads nor buffers input: it is given one whole record at a time. No allocation
// for a record of application data. Owned by its engine, confined to its thread.
class RecordLayer {
 public:
  enum class Role : uint8_t { kClient, kServer };
  struct Settings {
    Role role = Role::kClient;
    uint32_t suite = 0;  // as in a ServerHello
    const base::Clock* clock = &base::Clock::System();
    // Records under one key of ours, after which we send a KeyUpdate: well below the 2^24.5 of
    // RFC 8446 section 5.5. At least 2.
    uint64_t rekey_after = uint64_t{1} << 23U;
  };
  // What a record was.
  enum class Kind : uint8_t {
    kData,     // application data: `bytes` of it, at the start of the room
    kControl,  // something that was dealt with
    kTickets,  // NewSessionTickets and nothing else, each of them whole
    kEnd,      // the peer's close_notify
    kAlert,    // a fatal alert: `alert`
    kFault,    // refused: `fault`
  };
  struct Step {
    Kind kind = Kind::kFault;
    size_t bytes = 0;
    int alert = -1;
    RecordFault fault{};
  };

  // Null: a suite or a secret that is not TLS 1.3's, or OpenSSL refused. `read` is the peer's
  // application traffic secret, `write` is ours.
  static std::unique_ptr<RecordLayer> Create(const Settings& settings, base::ByteSpan read,
                                             base::ByteSpan write);

  // Takes such messages from now on; must outlive this. Without one they are refused.
  void SetAuth(AuthMessages* auth) { auth_ = auth; }

  // Opens what RecordInput::Next gave. `room` has RecordCipher::RoomFor(record) bytes at least.
  // After kEnd, kAlert and kFault it must not be called again.
  Step Open(base::ByteSpan record, base::MutableByteSpan room);

  // Appends one record of application data, of kMaxRecordPlaintext bytes at most, and before it
  // whatever is owed: a KeyUpdate that the peer asked for, or one of our own. False: OpenSSL
  // refused, and nothing may be written any more.
  bool Seal(base::ByteSpan plaintext, RecordBuffer& out);
  // What Seal does in front of its data: to be called before messages are made that depend on the
  // present secret. False likewise.
  bool UpdateKeysIfDue(RecordBuffer& out);
  // Appends whole handshake messages, in records of at most `most` bytes with nothing in between.
  // False likewise.
  bool SealHandshake(base::ByteSpan messages, size_t most, RecordBuffer& out);
  // verify_data of the client's Finished behind its handshake: under its present secret, and over
  // a transcript's hash of HashBytes(), which `mac` has as well.
  bool ClientFinishedMac(base::ByteSpan transcript_hash, base::MutableByteSpan mac) const;
  size_t HashBytes() const { return reader_.HashBytes(); }
  // Appends an alert; close_notify goes as a warning, each other one is fatal.
  bool SealAlert(uint8_t description, RecordBuffer& out);
  // Somebody else has written a record under our present secret.
  void CountWritten() { writer_.Skip(1); }

 private:
  explicit RecordLayer(const Settings& settings) : settings_(settings) {}

  Step OnAlert(base::ByteSpan content) const;
  Step OnHandshake(base::ByteSpan content);
  Step OnContinued(base::ByteSpan content);  // of the message that is unfinished
  Step OnMessages(base::ByteSpan content);
  // One whole message; `last` when nothing follows it in its record.
  Step OnMessage(base::ByteSpan message, bool last);
  Step OnKeyUpdate(base::ByteSpan message, bool last);
  // Judges a message by its first four bytes, before the rest of it is waited for.
  Step CheckMessageHeader(base::ByteSpan header) const;

  const Settings settings_;
  RecordCipher reader_;
  RecordCipher writer_;
  RecordBudget budget_;
  bool owes_update_ = false;  // the peer has asked for new keys of ours
  bool inside_ = false;  // a message, or an answer, has begun and not ended: nothing else may come
  std::vector<uint8_t> unfinished_;  // the start of a handshake message, from earlier records
  AuthMessages* auth_ = nullptr;
};

}  // namespace postern::tls
