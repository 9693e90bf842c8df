// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/sha.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/bytes.h"

namespace postern::tls {

// SHA-256 or SHA-384 over bytes that come piece by piece, which can be asked at any point and can
// be put away small and gone on with: EVP has no such thing (before OpenSSL 3.6), and its own state
// is twice the size. So this is the one user of libcrypto's SHA256_* and SHA384_*. A value; wiped
// with the object.
class RunningHash {
 public:
  static constexpr size_t kSha256Bytes = 32;
  static constexpr size_t kSha384Bytes = 48;

  struct Digest {
    std::array<uint8_t, kSha384Bytes> room{};
    size_t size = 0;
    base::ByteSpan bytes() const { return {room.data(), size}; }
  };

  // By its size: kSha256Bytes or kSha384Bytes.
  explicit RunningHash(size_t digest_bytes);
  ~RunningHash();
  RunningHash(const RunningHash&) = default;
  RunningHash& operator=(const RunningHash&) = default;

  void Update(base::ByteSpan bytes);
  // Of all so far; more may follow.
  Digest Peek() const;

  // The state, in 41 to 208 bytes; and from what Save gave, in this process alone.
  std::vector<uint8_t> Save() const;
  static RunningHash Restore(base::ByteSpan saved);

 private:
  bool is_sha256() const { return digest_bytes_ == kSha256Bytes; }

  size_t digest_bytes_;
  union {
    SHA256_CTX sha256;
    SHA512_CTX sha512;
  } state_;
};

}  // namespace postern::tls
