// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/session_facts.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace postern::tls {
namespace {

constexpr uint64_t kVersion = 2;
constexpr size_t kMaxSerial = 255;
constexpr size_t kMaxChain = 16;  // more than any chain that is accepted
constexpr size_t kMaxId = 2048;   // SPIFFE-ID section 2.3

void Put(std::string& out, uint64_t value, size_t bytes) {
  for (size_t i = bytes; i > 0; --i) {
    out.push_back(static_cast<char>(value >> (8 * (i - 1))));
  }
}

void Put(std::string& out, absl::Time time) {
  Put(out, static_cast<uint64_t>(absl::ToUnixSeconds(time)), 8);
}

template <size_t N>
void Put(std::string& out, const std::array<uint8_t, N>& digest) {
  out.append(base::AsText(digest));
}

// Takes fields from the front. Past the end everything is empty and `ok` is false.
class Reader {
 public:
  explicit Reader(base::ByteSpan bytes) : left_(bytes) {}
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && left_.empty(); }

  base::ByteSpan Bytes(size_t count) {
    if (count > left_.size()) {
      ok_ = false;
      left_ = {};
      return {};
    }
    const base::ByteSpan taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    for (const uint8_t byte : Bytes(bytes)) {
      value = value << 8U | byte;
    }
    return value;
  }
  absl::Time Time() { return absl::FromUnixSeconds(static_cast<int64_t>(Number(8))); }
  template <typename Array = base::Sha256Digest>
  Array Digest() {
    Array digest{};
    const base::ByteSpan bytes = Bytes(digest.size());
    std::copy(bytes.begin(), bytes.end(), digest.begin());
    return digest;
  }
  std::string_view Text(size_t count) { return base::AsText(Bytes(count)); }

 private:
  base::ByteSpan left_;
  bool ok_ = true;
};

}  // namespace

std::optional<std::string> SerializeSessionFacts(const SessionFacts& facts) {
  const x509::VerifiedPeer& peer = facts.peer;
  if (peer.serial.size() > kMaxSerial || peer.chain_sha256.empty() ||
      peer.chain_sha256.size() > kMaxChain || peer.links.size() > kMaxChain ||
      peer.id.uri().size() > kMaxId) {
    return std::nullopt;
  }
  std::string out;
  Put(out, kVersion, 1);
  Put(out, facts.binding);
  Put(out, facts.until);
  Put(out, peer.not_before);
  Put(out, peer.not_after);
  Put(out, peer.serial.size(), 1);
  out.append(peer.serial);
  Put(out, peer.leaf_sha256);
  Put(out, peer.chain_sha256.size(), 1);
  for (const base::Sha256Digest& digest : peer.chain_sha256) {
    Put(out, digest);
  }
  Put(out, peer.key_sha256);
  Put(out, peer.links.size(), 1);
  for (const x509::ChainLink& link : peer.links) {
    Put(out, link.issuer_key);
    Put(out, link.certificate);
  }
  Put(out, peer.id.uri().size(), 2);
  out.append(peer.id.uri());
  return out;
}

std::optional<SessionFacts> ParseSessionFacts(base::ByteSpan bytes) {
  Reader reader(bytes);
  if (bytes.size() > kMaxSessionFacts || reader.Number(1) != kVersion) {
    return std::nullopt;
  }
  const base::Sha256Digest binding = reader.Digest();
  const absl::Time until = reader.Time();
  const absl::Time not_before = reader.Time();
  const absl::Time not_after = reader.Time();
  const std::string serial(reader.Text(reader.Number(1)));
  const base::Sha256Digest leaf = reader.Digest();
  const size_t count = reader.Number(1);
  if (count == 0 || count > kMaxChain) {
    return std::nullopt;
  }
  std::vector<base::Sha256Digest> chain(count);
  std::generate(chain.begin(), chain.end(), [&reader] { return reader.Digest(); });
  const base::Sha256Digest key = reader.Digest();
  const size_t link_count = reader.Number(1);
  if (link_count > kMaxChain) {
    return std::nullopt;
  }
  std::vector<x509::ChainLink> links(link_count);
  for (x509::ChainLink& link : links) {
    link.issuer_key = reader.Digest<x509::HalfDigest>();
    link.certificate = reader.Digest<x509::HalfDigest>();
  }
  const std::string_view uri = reader.Text(reader.Number(2));
  if (!reader.AtEnd()) {
    return std::nullopt;
  }
  absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(uri);
  if (!id.ok()) {
    return std::nullopt;
  }
  return SessionFacts{binding,
                      until,
                      {*std::move(id), not_before, not_after, serial, leaf, std::move(chain), key,
                       std::move(links)}};
}

}  // namespace postern::tls
