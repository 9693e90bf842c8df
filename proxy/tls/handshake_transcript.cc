// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/handshake_transcript.h"

#include <algorithm>
#include <array>
#include <utility>

#include "proxy/tls/handshake_messages.h"
#include "proxy/tls/wire_reader.h"

namespace postern::tls {
namespace {

constexpr size_t kVersionBytes = 2;
constexpr size_t kRandomBytes = 32;
constexpr uint32_t kPostHandshakeAuth = 49;
constexpr uint32_t kAes256GcmSha384 = 0x1302;
constexpr uint8_t kMessageHash = 254;

// RFC 8446 section 4.1.3: SHA-256 of "HelloRetryRequest".
constexpr std::array<uint8_t, kRandomBytes> kRetryRandom = {
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
    0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C};

// OpenSSL shows a message before it has judged it: what is malformed offers nothing.
bool Offers(base::ByteSpan hello) {
  WireReader fields(hello);
  if (!fields.Take(kHandshakeHeaderBytes + kVersionBytes + kRandomBytes).has_value() ||
      !fields.Vector(1).has_value() || !fields.Vector(2).has_value() ||
      !fields.Vector(1).has_value()) {
    return false;
  }
  WireReader extensions(fields.Vector(2).value_or(base::ByteSpan()));
  while (!extensions.empty()) {
    const std::optional<uint32_t> type = extensions.Integer(2);
    if (!type.has_value() || !extensions.Vector(2).has_value()) {
      return false;
    }
    if (*type == kPostHandshakeAuth) {
      return true;
    }
  }
  return false;
}

}  // namespace

void HandshakeTranscript::Add(base::ByteSpan message) {
  if (message.size() < kHandshakeHeaderBytes) {
    return;
  }
  const auto type = static_cast<HandshakeType>(message[0]);
  if (type == HandshakeType::kClientHello) {
    client_offers_ = Offers(message);
    if (!hash_.has_value()) {
      first_hello_.assign(message.begin(), message.end());
      return;
    }
  }
  if (type == HandshakeType::kServerHello && !hash_.has_value()) {
    OnServerHello(message);
    return;
  }
  finished_ += type == HandshakeType::kFinished ? 1 : 0;
  if (hash_.has_value()) {
    hash_->Update(message);
  }
}

void HandshakeTranscript::OnServerHello(base::ByteSpan message) {
  WireReader fields(message);
  fields.Take(kHandshakeHeaderBytes + kVersionBytes);
  const base::ByteSpan random = fields.Take(kRandomBytes).value_or(base::ByteSpan());
  fields.Vector(1);
  const bool sha384 = fields.Integer(2) == kAes256GcmSha384;
  hash_.emplace(sha384 ? RunningHash::kSha384Bytes : RunningHash::kSha256Bytes);
  const std::vector<uint8_t> hello = std::exchange(first_hello_, {});
  if (std::equal(random.begin(), random.end(), kRetryRandom.begin(), kRetryRandom.end())) {
    // A HelloRetryRequest: the first hello gives way to its hash, in a message that is never sent.
    RunningHash of_hello = *hash_;
    of_hello.Update(hello);
    const RunningHash::Digest digest = of_hello.Peek();
    const std::array<uint8_t, kHandshakeHeaderBytes> header = {kMessageHash, 0, 0,
                                                               static_cast<uint8_t>(digest.size)};
    hash_->Update(header);
    hash_->Update(digest.bytes());
  } else {
    hash_->Update(hello);
  }
  hash_->Update(message);
}

std::vector<uint8_t> HandshakeTranscript::Save() const {
  return hash_.has_value() ? hash_->Save() : std::vector<uint8_t>();
}

}  // namespace postern::tls
