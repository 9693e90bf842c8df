// SPDX-License-Identifier: Apache-2.0
#include "common/x509/peer_pins.h"

#include <algorithm>

#include "common/base/strings.h"

namespace postern::x509 {
namespace {

constexpr std::string_view kPrefix = "sha256:";
constexpr size_t kMostShown = 4;  // of a list, so that a detail stays a line

bool Contains(const std::vector<base::Sha256Digest>& list, const base::Sha256Digest& digest) {
  return std::find(list.begin(), list.end(), digest) != list.end();
}

template <typename Digests>
std::string ListText(const Digests& digests) {
  std::string text;
  size_t shown = 0;
  for (const base::Sha256Digest& digest : digests) {
    if (shown == kMostShown) {
      return base::StrCat(text, " and ", digests.size() - shown, " more");
    }
    base::StrAppend(text, shown == 0 ? "" : ", ", PinText(digest));
    ++shown;
  }
  return text;
}

void AppendSorted(std::string& text, std::string_view name,
                  std::vector<base::Sha256Digest> digests) {
  std::sort(digests.begin(), digests.end());
  digests.erase(std::unique(digests.begin(), digests.end()), digests.end());
  for (const base::Sha256Digest& digest : digests) {
    base::StrAppend(text, text.empty() ? "" : ",", name, "=", PinText(digest));
  }
}

}  // namespace

std::optional<std::string> PeerPins::Mismatch(const VerifiedPeer& peer) const {
  if (!key_sha256.empty() && !Contains(key_sha256, peer.key_sha256)) {
    return base::StrCat("the peer's key is ", PinText(peer.key_sha256),
                        "; pinned: ", ListText(key_sha256));
  }
  const size_t first_ca = std::min<size_t>(1, peer.chain_sha256.size());
  const std::vector<base::Sha256Digest> cas(
      peer.chain_sha256.begin() + static_cast<std::ptrdiff_t>(first_ca), peer.chain_sha256.end());
  const bool has_ca = std::any_of(cas.begin(), cas.end(), [this](const base::Sha256Digest& ca) {
    return Contains(ca_sha256, ca);
  });
  if (!ca_sha256.empty() && !has_ca) {
    return base::StrCat("the CAs of the peer's path are ", ListText(cas),
                        "; pinned: ", ListText(ca_sha256));
  }
  return std::nullopt;
}

std::string PeerPins::ToString() const {
  std::string text;
  AppendSorted(text, "ca", ca_sha256);
  AppendSorted(text, "key", key_sha256);
  return text;
}

absl::StatusOr<base::Sha256Digest> ParsePin(std::string_view text) {
  base::Sha256Digest digest{};
  if (text.starts_with(kPrefix) && text.size() == kPrefix.size() + 2 * digest.size()) {
    if (const auto raw = base::FromHex(text.substr(kPrefix.size())); raw.ok()) {
      std::copy(raw->begin(), raw->end(), digest.begin());
      return digest;
    }
  }
  return absl::InvalidArgumentError(base::StrCat(
      "'", base::Printable(text, 128), "' is no pin; write sha256: and 64 hexadecimal digits"));
}

std::string PinText(const base::Sha256Digest& digest) {
  return base::StrCat(kPrefix, base::ToHex(digest));
}

}  // namespace postern::x509
