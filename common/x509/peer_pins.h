// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/chain_verifier.h"

namespace postern::x509 {

// What a peer must have beside a chain that leads to a root of its bundle: one of these keys, and
// one of these CAs anywhere on its verified path, the root included. A list that is empty asks for
// nothing. A value; shared by the sessions as shared_ptr<const PeerPins>.
struct PeerPins {
  std::vector<base::Sha256Digest> ca_sha256;   // over a CA certificate, DER
  std::vector<base::Sha256Digest> key_sha256;  // over the leaf's SubjectPublicKeyInfo, DER

  bool empty() const { return ca_sha256.empty() && key_sha256.empty(); }
  // Nullopt: it has. Else a sentence with the hashes, what was shown and what is pinned.
  std::optional<std::string> Mismatch(const VerifiedPeer& peer) const;
  // Two that ask for the same have one text, in whatever order they were written.
  std::string ToString() const;

  bool operator==(const PeerPins&) const = default;
};

// "sha256:" and 64 hexadecimal digits. InvalidArgument otherwise.
absl::StatusOr<base::Sha256Digest> ParsePin(std::string_view text);
std::string PinText(const base::Sha256Digest& digest);

}  // namespace postern::x509
