// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/close_reason.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/trust_bundle.h"

namespace postern::x509 {

// In which role the peer presents the certificate: decides the extended key usage that it needs.
enum class PeerRole : uint8_t { kClient, kServer };

// The first half of a SHA-256: what a CRL is looked up by. Nobody but a CA chooses what is hashed,
// so 128 bits are enough, and a session keeps two for each certificate of its peer's path.
using HalfDigest = std::array<uint8_t, 16>;

// One certificate of a verified path, as a CRL of its issuer would name it.
struct ChainLink {
  HalfDigest issuer_key{};   // of the issuer's SubjectPublicKeyInfo, DER
  HalfDigest certificate{};  // LinkDigest of the issuer's key and the certificate's serial
  bool operator==(const ChainLink&) const = default;
};

HalfDigest HalfOf(const base::Sha256Digest& digest);

// Which certificate of which CA, in one value: of an issuer's key digest and a serial (as SerialHex
// gives it).
HalfDigest LinkDigest(const HalfDigest& issuer_key, std::string_view serial);

// What is known of a peer after its chain was verified. A value; kept by a session as facts.
struct VerifiedPeer {
  SpiffeId id;
  absl::Time not_before;  // the latest of the verified chain
  absl::Time not_after;   // the earliest of the verified chain
  std::string serial;     // of the leaf, hex
  base::Sha256Digest leaf_sha256{};
  std::vector<base::Sha256Digest> chain_sha256;  // verified path, leaf first, root last
  base::Sha256Digest key_sha256{};               // over the leaf's SubjectPublicKeyInfo, DER
  std::vector<ChainLink> links = {};             // of the path, leaf first, the root left out
};

// Why a chain was refused.
struct ChainError {
  base::CloseReason reason = base::CloseReason::kInternal;
  int x509_error = 0;   // X509_V_ERR_*, chosen so that OpenSSL sends the fitting alert
  int depth = -1;       // leaf 0
  std::string detail;   // a sentence, printable
  std::string peer_id;  // SPIFFE ID if one could be read
};

struct ChainVerdict {
  std::optional<VerifiedPeer> peer;  // set: verified
  ChainError error;                  // else: why not
};

inline constexpr int kMaxChainDepth = 4;  // intermediates and leaf
inline constexpr size_t kMaxSubjectAltNames = 64;

// Judges a peer's chain by the SPIFFE X.509-SVID rules (section 5): one URI SAN, the bundle of that
// trust domain alone, RFC 5280 path validation at `now`, leaf profile, extended key usage of
// `role`, key and signature strength of each certificate. Pure; any thread; keeps nothing.
ChainVerdict VerifyPeerChain(X509* leaf, STACK_OF(X509) * untrusted, const TrustBundleSet& bundles,
                             PeerRole role, absl::Time now);

}  // namespace postern::x509
