// SPDX-License-Identifier: Apache-2.0
// Deprecated in OpenSSL 3.0 in favour of EVP; running_hash.h says why they are used.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "proxy/tls/running_hash.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>

namespace postern::tls {
namespace {

void Append(std::vector<uint8_t>& out, const void* from, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  out.insert(out.end(), bytes, bytes + size);
}

void Take(base::ByteSpan& from, void* to, size_t size) {
  const size_t count = std::min(size, from.size());
  std::memcpy(to, from.data(), count);
  from = from.subspan(count);
}

// Both contexts have the same members but for the name of the block: the chaining value, the bits
// so far, and `num` bytes of a block that is not full.
template <typename Context>
void SaveContext(const Context& context, const void* block, std::vector<uint8_t>& out) {
  out.reserve(1 + sizeof(context.h) + 2 * sizeof(context.Nl) + context.num);
  out.push_back(static_cast<uint8_t>(context.md_len));
  Append(out, context.h, sizeof(context.h));
  Append(out, &context.Nl, sizeof(context.Nl));
  Append(out, &context.Nh, sizeof(context.Nh));
  Append(out, block, context.num);
}

template <typename Context>
void RestoreContext(base::ByteSpan from, Context& context, void* block, size_t block_bytes) {
  Take(from, context.h, sizeof(context.h));
  Take(from, &context.Nl, sizeof(context.Nl));
  Take(from, &context.Nh, sizeof(context.Nh));
  context.num = static_cast<unsigned>(std::min(from.size(), block_bytes - 1));
  Take(from, block, context.num);
}

}  // namespace

RunningHash::RunningHash(size_t digest_bytes) : digest_bytes_(digest_bytes), state_{} {
  if (is_sha256()) {
    SHA256_Init(&state_.sha256);
  } else {
    SHA384_Init(&state_.sha512);
  }
}

RunningHash::~RunningHash() {
  OPENSSL_cleanse(&state_, sizeof(state_));
}

void RunningHash::Update(base::ByteSpan bytes) {
  if (is_sha256()) {
    SHA256_Update(&state_.sha256, bytes.data(), bytes.size());
  } else {
    SHA384_Update(&state_.sha512, bytes.data(), bytes.size());
  }
}

RunningHash::Digest RunningHash::Peek() const {
  RunningHash copy = *this;
  Digest digest;
  digest.size = digest_bytes_;
  if (is_sha256()) {
    SHA256_Final(digest.room.data(), &copy.state_.sha256);
  } else {
    SHA384_Final(digest.room.data(), &copy.state_.sha512);
  }
  return digest;
}

std::vector<uint8_t> RunningHash::Save() const {
  std::vector<uint8_t> out;
  if (is_sha256()) {
    SaveContext(state_.sha256, state_.sha256.data, out);
  } else {
    SaveContext(state_.sha512, state_.sha512.u.p, out);
  }
  return out;
}

RunningHash RunningHash::Restore(base::ByteSpan saved) {
  RunningHash hash(saved.empty() ? kSha256Bytes : saved.front());
  const base::ByteSpan rest = saved.subspan(std::min<size_t>(1, saved.size()));
  if (hash.is_sha256()) {
    RestoreContext(rest, hash.state_.sha256, hash.state_.sha256.data,
                   sizeof(hash.state_.sha256.data));
  } else {
    RestoreContext(rest, hash.state_.sha512, hash.state_.sha512.u.p,
                   sizeof(hash.state_.sha512.u.p));
  }
  return hash;
}

}  // namespace postern::tls
