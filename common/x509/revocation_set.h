// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/crl.h"

namespace postern::x509 {

// What a revocation names.
enum class RevokedBy : uint8_t {
  kSpiffeId,  // every certificate of an identity
  kSerial,    // one certificate
  kKey,       // every certificate of a key
  kIssuer,    // every certificate below a CA
};
inline constexpr size_t kRevokedByCount = 4;

// "spiffe_id", "serial", "key_sha256", "issuer_sha256": in the store, in logs, in JSON.
std::string_view Token(RevokedBy by) noexcept;
std::optional<RevokedBy> ParseRevokedBy(std::string_view token) noexcept;

// One thing that is no longer accepted. Mirrors postern.v1.Revocation. A value.
struct Revocation {
  RevokedBy by = RevokedBy::kSerial;
  // The URI; the serial in hex; the SHA-256 in hex. In the form that CanonicalSubject gives.
  std::string subject = {};
  uint64_t sequence = 0;  // of the list that it came with
  std::string reason = {};
  absl::Time revoked_at = absl::UnixEpoch();
  // No certificate that it names lives longer; InfiniteFuture: it stays until it is lifted.
  absl::Time forget_at = absl::InfiniteFuture();

  bool operator==(const Revocation&) const = default;
};

// The one form of a subject: lower-case hex without separators, serials without leading zeros.
// InvalidArgument: no SPIFFE ID of a workload, no number, no SHA-256; names what it should be.
absl::StatusOr<std::string> CanonicalSubject(RevokedBy by, std::string_view text);

// Everything that is not accepted though its chain verifies: the issuer's revocations and the CRLs
// of files. Immutable; shared by threads. A look-up is a handful of hash look-ups, however much is
// revoked.
class RevocationSet {
 public:
  RevocationSet() = default;
  // Subjects are canonical. Of two that name the same the later one counts.
  explicit RevocationSet(std::vector<Revocation> revocations,
                         std::vector<std::shared_ptr<const Crl>> crls = {});

  // A sentence that says what of the peer is revoked, when and why; nullopt: nothing is.
  std::optional<std::string> WhyRevoked(const VerifiedPeer& peer) const;

  // A sentence when a CRL of one of the peer's issuers should have been replaced before `now`:
  // whether the peer is revoked cannot be known then.
  std::optional<std::string> WhyUnknown(const VerifiedPeer& peer, absl::Time now) const;

  // Null: it is not revoked. `subject` is canonical. Lives as long as the set.
  const Revocation* Find(RevokedBy by, std::string_view subject) const;

  const std::vector<Revocation>& revocations() const { return revocations_; }
  const std::vector<std::shared_ptr<const Crl>>& crls() const { return crls_; }
  bool empty() const { return revocations_.empty() && crls_.empty(); }

 private:
  const Revocation* FindPeer(const VerifiedPeer& peer) const;
  const Revocation* FindDigest(RevokedBy by, const base::Sha256Digest& digest) const;

  std::vector<Revocation> revocations_;
  // Indices into revocations_, by what is looked up.
  absl::flat_hash_map<std::string, size_t> by_id_;
  absl::flat_hash_map<std::string, size_t> by_serial_;
  std::array<absl::flat_hash_map<base::Sha256Digest, size_t>, 2> by_digest_;  // kKey, kIssuer
  std::vector<std::shared_ptr<const Crl>> crls_;
  absl::flat_hash_map<HalfDigest, std::vector<const Crl*>> by_issuer_key_;
};

// What the issuer signs when it signs a list (RevocationList, serialised): a context, so that the
// signature is good for nothing else, and the list.
std::string RevocationStatement(std::string_view list);

}  // namespace postern::x509
