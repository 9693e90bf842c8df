// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"

namespace postern::tls {

// What a record protects; the outer type of a protected one is always application data.
enum class ContentType : uint8_t {
  kInvalid = 0,
  kChangeCipherSpec = 20,
  kAlert = 21,
  kHandshake = 22,
  kApplicationData = 23,
};

// RFC 8446 sections 5.1 and 5.2.
inline constexpr size_t kRecordHeaderBytes = 5;
inline constexpr size_t kRecordTagBytes = 16;
inline constexpr size_t kMaxRecordPlaintext = size_t{1} << 14U;
inline constexpr size_t kMaxRecordCiphertext = kMaxRecordPlaintext + 256;

// std::vector zeroes what resize adds; these bytes are all written right afterwards.
template <typename T>
struct UninitializedAllocator : std::allocator<T> {
  template <typename U>
  struct rebind {  // NOLINT(readability-identifier-naming): the standard's name
    using other = UninitializedAllocator<U>;
  };
  template <typename U>
  void construct(U* at) noexcept {
    ::new (static_cast<void*>(at)) U;
  }
  template <typename U, typename... Args>
  void construct(U* at, Args&&... args) {
    std::allocator_traits<std::allocator<T>>::construct(*this, at, std::forward<Args>(args)...);
  }
};
// Bytes on their way to the peer, or decrypted ones.
using RecordBuffer = std::vector<uint8_t, UninitializedAllocator<uint8_t>>;

// One traffic secret; wiped with the object and before it is replaced, never formatted.
class TrafficSecret {
 public:
  static constexpr size_t kMaxBytes = 48;  // SHA-384's

  TrafficSecret() = default;
  ~TrafficSecret() { Wipe(); }
  TrafficSecret(const TrafficSecret&) = delete;
  TrafficSecret& operator=(const TrafficSecret&) = delete;

  // Empty afterwards when `secret` is too long.
  void Set(base::ByteSpan secret);
  void Wipe();
  base::ByteSpan bytes() const { return {bytes_.data(), size_}; }

 private:
  std::array<uint8_t, kMaxBytes> bytes_{};
  size_t size_ = 0;
};

struct RecordSuite;  // of a cipher suite: its AEAD and hash

// One direction of TLS 1.3's record protection (RFC 8446 sections 5.2 to 5.5): the key schedule
// from a traffic secret on, the sequence number, and the AEAD. The key is set up once; a record
// sets a nonce alone. Owned by a RecordLayer, confined to its thread.
class RecordCipher {
 public:
  enum class Use : uint8_t { kSeal, kOpen };
  struct Opened {
    ContentType type = ContentType::kInvalid;  // kInvalid: nothing but padding
    size_t bytes = 0;                          // of content, at the start of the room
    size_t inner = 0;                          // of the content, its type and the padding
  };

  RecordCipher() = default;
  RecordCipher(const RecordCipher&) = delete;
  RecordCipher& operator=(const RecordCipher&) = delete;

  // `suite` as in a ServerHello. False: not one of TLS 1.3's first three, a secret of the wrong
  // length, or OpenSSL refused.
  bool Start(uint32_t suite, base::ByteSpan secret, Use use);

  // Appends one whole TLSCiphertext to `out`. `content` has kMaxRecordPlaintext bytes at most and
  // must not lie in `out`. False: no number is left, or OpenSSL refused; `out` is as before.
  bool Seal(ContentType type, base::ByteSpan content, RecordBuffer& out);
  // Opens one whole TLSCiphertext into `room`, which has RoomFor(record) bytes at least. nullopt:
  // it is not authentic, and the room holds nothing of it.
  std::optional<Opened> Open(base::ByteSpan record, base::MutableByteSpan room);
  static size_t RoomFor(base::ByteSpan record) {
    return record.size() < kRecordHeaderBytes + kRecordTagBytes
               ? 0
               : record.size() - kRecordHeaderBytes - kRecordTagBytes;
  }

  // The next generation of keys, after a KeyUpdate; numbers start at zero. False: OpenSSL refused,
  // and the object must not be used any more.
  bool Advance();

  // verify_data of a Finished under the present secret (RFC 8446 section 4.4.4). `mac` has the size
  // of the suite's hash, as `transcript_hash` has. False: another size, or OpenSSL refused.
  bool FinishedMac(base::ByteSpan transcript_hash, base::MutableByteSpan mac) const;
  // Bytes of the suite's hash; 0 before Start.
  size_t HashBytes() const;

  // Records sealed or opened under this secret.
  uint64_t sequence() const { return sequence_; }
  // As if `records` more had been: by somebody else who holds the secret, or by a test.
  void Skip(uint64_t records) { sequence_ += records; }

 private:
  static constexpr size_t kNonceBytes = 12;
  using CipherCtxPtr = x509::OpensslPtr<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;
  using Nonce = std::array<uint8_t, kNonceBytes>;

  bool SetUp();  // key and IV of secret_
  bool HasNumber() const { return sequence_ != UINT64_MAX; }
  Nonce NextNonce() const;
  bool SealInto(uint8_t* record, ContentType type, base::ByteSpan content);

  const RecordSuite* suite_ = nullptr;
  Use use_ = Use::kSeal;
  CipherCtxPtr ctx_;
  TrafficSecret secret_;
  Nonce iv_{};
  uint64_t sequence_ = 0;
};

}  // namespace postern::tls
