// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/failure.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/peer_pins.h"
#include "common/x509/spiffe_id.h"
#include "proxy/tls/record_cipher.h"
#include "proxy/tls/tls_context.h"

namespace postern::tls {

// What an engine call needs next.
enum class EngineOutcome : uint8_t {
  kDone,       // handshake complete; or `bytes` were read or written
  kWantRead,   // feed more bytes from the peer
  kWantWrite,  // write only: the output scratch is full, send it first
  kEnd,        // read only: the peer's close_notify came
  kFailed,     // fatal; failure() says why; output may hold an alert to send
};

struct EngineResult {
  EngineOutcome outcome = EngineOutcome::kFailed;
  size_t bytes = 0;
};

// What became of the session tickets that a client offered; without one, kNone.
enum class TicketUse : uint8_t {
  kNone,
  kResumed,     // this handshake resumes a session
  kUnknownKey,  // sealed by somebody else, or before the last renewal or change of trust
  kChanged,     // bundles, policy or revocations have changed since, or it is another listener's
  kExpired,     // past its deadline or the peer's notAfter
  kMalformed,   // of our key, but not of our making
};

// Facts of a finished handshake, for the access log.
struct TlsFacts {
  std::string version;  // "TLSv1.3"
  std::string cipher;
  std::string group;
  std::string alpn;  // as selected; empty without one
  bool resumed = false;
};

// Whether a server can ask its client to prove itself again inside the connection.
enum class ReauthState : uint8_t {
  kUnable,    // the client has not offered it, or this is a client
  kIdle,      // it can be asked
  kUnderWay,  // it was asked and has not answered yet
};

// What became of such requests.
struct ReauthCounts {
  uint64_t renewed = 0;    // server: a certificate that lasts longer
  uint64_t unchanged = 0;  // server: a good answer, but nothing that lasts longer
  uint64_t failed = 0;     // server: the answer was refused
  uint64_t answered = 0;   // client
};

// What the engines of one worker share: memory, so that nothing is kept per connection but what
// could not be consumed or sent, and the newest contexts. Owned by the worker; used by one engine
// at a time, inside one callback.
class EngineScratch {
 public:
  EngineScratch();
  ~EngineScratch();
  // Where to recv into before Feed; 64 KiB or more.
  base::MutableByteSpan input() { return {input_.data(), input_.size()}; }
  RecordBuffer& output() { return output_; }

  // With what open connections prove themselves again, and judge who does. Without it each engine
  // does so with the context that it was made with.
  void Publish(std::shared_ptr<const TlsContext> client, std::shared_ptr<const TlsContext> server);
  ReauthCounts& reauths() { return reauths_; }

 private:
  friend class TlsEngine;
  RecordBuffer input_;  // pages that no read has filled are none of the process
  RecordBuffer output_;
  const void* user_ = nullptr;  // the engine whose bytes are in output_
  std::shared_ptr<const TlsContext> newest_client_, newest_server_;
  ReauthCounts reauths_;
};

// A TLS 1.3 connection without a socket: bytes in, bytes out. One for each TLS connection, owned by
// its session, confined to the worker's thread. OpenSSL shakes hands; the records after that are
// our own RecordLayer's (docs/adr/0012). All SSL_* I/O goes through ssl_call.h.
//
// A turn: recv into scratch.input(); Feed(bytes); Handshake, Read or Write as often as wanted;
// TakeOutput and send; EndTurn (keeps what was not consumed, and the unsent rest given back by
// ReturnUnsent). Several records written in one turn leave in one send.
class TlsEngine {
 public:
  // ResourceExhausted when OpenSSL has no memory. The scratch must outlive the engine, and so must
  // `listener`: the name by which the client came, to which its ticket is bound.
  static absl::StatusOr<std::unique_ptr<TlsEngine>> CreateServer(
      std::shared_ptr<const TlsContext> context, EngineScratch& scratch,
      std::string_view listener = {});
  // `expected` are the identities that the server may have (checked inside the handshake, so that a
  // wrong server is refused before the client's certificate is shown); empty accepts any verified
  // SVID and leaves the judgement to the caller. `destination`: a session that was made with it and
  // with the same expectations is resumed, and the one that a server of the mesh gives is kept;
  // empty, or with nobody expected: neither. `pins`: what the server must have beyond the bundle;
  // null: nothing. A session that was made under other pins is not resumed.
  static absl::StatusOr<std::unique_ptr<TlsEngine>> CreateClient(
      std::shared_ptr<const TlsContext> context, EngineScratch& scratch,
      std::vector<x509::SpiffeIdPattern> expected, std::string_view destination = {},
      std::shared_ptr<const x509::PeerPins> pins = nullptr);
  ~TlsEngine();
  TlsEngine(const TlsEngine&) = delete;
  TlsEngine& operator=(const TlsEngine&) = delete;

  // Gives bytes from the peer, valid until EndTurn. Call once for each recv.
  void Feed(base::ByteSpan bytes);
  // Drives the handshake: kDone, kWantRead or kFailed.
  EngineResult Handshake();
  // Decrypts into `out`: kDone with bytes, kWantRead, kEnd or kFailed.
  EngineResult Read(base::MutableByteSpan out);
  // Encrypts from `in`: kDone with the bytes taken (all of them, as long as output stays under its
  // high-water mark), kWantWrite or kFailed.
  EngineResult Write(base::ByteSpan in);
  // Queues close_notify; this direction is finished.
  void CloseWrite();
  // Queues a fatal alert (a TLS AlertDescription), for a refusal after the handshake. Nothing can
  // be written behind it. Does nothing before the handshake is done or after CloseWrite.
  void SendAlert(int description);

  // The bytes to send now: the unsent rest of earlier turns first. Valid until EndTurn.
  base::ByteSpan Output();
  // `sent` bytes of Output have left.
  void Sent(size_t sent);
  bool HasOutput() const;
  // Bytes that wait to be sent, kept from earlier turns included.
  size_t OutputBytes() const;
  // Ends the use of the scratch: what was not consumed or not sent moves into the connection's own
  // small buffers. Must be called before the scratch serves another engine.
  void EndTurn();

  // Decrypted or fed bytes that a Read could still deliver without another recv.
  bool HasBufferedInput() const;

  // Server: asks the client to prove itself again, with its newest certificate (RFC 8446 section
  // 4.6.2). An answer that is good changes peer(), if it lasts longer; any other one is a failure.
  // False: not now (see reauth), or one of the two directions has ended.
  bool AskClientAgain();
  ReauthState reauth() const;

  // Also after a resumption, from the facts of the full handshake.
  const std::optional<x509::VerifiedPeer>& peer() const;
  TicketUse ticket_use() const;
  // Set after kFailed: reason, X.509 error and depth, alerts sent and received. The side is the
  // caller's to fill in.
  const base::Failure& failure() const;
  TlsFacts facts() const;

  struct Impl;  // for proxy/tls alone

 private:
  explicit TlsEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::tls
