// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/issued_revocations.h"

#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/ca_statement.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "postern/v1/types.pb.h"
#include "proxy/identity/wire.h"

namespace postern::identity {
namespace {

absl::StatusOr<v1::RevocationList> ParseList(const std::string& bytes) {
  v1::RevocationList list;
  if (!list.ParseFromString(bytes)) {
    return absl::InvalidArgumentError("the list of revocations is damaged");
  }
  return list;
}

absl::StatusOr<std::vector<x509::X509Ptr>> ChainOf(const v1::SignedRevocations& wire) {
  if (wire.signer_chain_der_size() > x509::kMaxChainDepth) {
    return absl::InvalidArgumentError("the list's signer has too long a chain");
  }
  std::vector<x509::X509Ptr> chain;
  for (const std::string& der : wire.signer_chain_der()) {
    auto certificate = x509::CertificateFromDer(base::AsBytes(der));
    if (!certificate.ok()) {
      return certificate.status();
    }
    chain.push_back(*std::move(certificate));
  }
  return chain;
}

// A CA that the list, or the one before it, revokes cannot lift its own revocation.
absl::Status CheckSigner(const std::vector<base::Sha256Digest>& path,
                         const x509::RevocationSet& revoked) {
  for (const base::Sha256Digest& digest : path) {
    if (revoked.Find(x509::RevokedBy::kIssuer, base::ToHex(digest)) != nullptr) {
      return absl::UnauthenticatedError("the list was signed by a CA that is revoked");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> IssuedRevocations::Take(const v1::SignedRevocations& wire,
                                             const x509::TrustBundle& bundle, absl::Time now) {
  const absl::StatusOr<std::vector<x509::X509Ptr>> chain = ChainOf(wire);
  if (!chain.ok()) {
    return chain.status();
  }
  const absl::StatusOr<std::vector<base::Sha256Digest>> path =
      x509::VerifyCaStatement(base::AsBytes(x509::RevocationStatement(wire.list())),
                              base::AsBytes(wire.signature()), *chain, bundle, now);
  if (!path.ok()) {
    return path.status();
  }
  const absl::StatusOr<v1::RevocationList> list = ParseList(wire.list());
  if (!list.ok()) {
    return list.status();
  }
  if (list->trust_domain() != bundle.trust_domain().name()) {
    return absl::InvalidArgumentError(
        base::StrCat("the list of revocations is of the trust domain '",
                     base::Printable(list->trust_domain()), "'"));
  }
  const Version offered = FromWire(list->version());
  if (version_.has_value() && offered <= *version_) {
    if (offered == *version_) {
      return false;
    }
    return absl::FailedPreconditionError(base::StrCat(
        "version ", offered.epoch, ".", offered.sequence, " is older than ", version_->epoch, ".",
        version_->sequence, ", which is in use: a roll-back is refused"));
  }
  absl::StatusOr<std::vector<x509::Revocation>> revocations = RevocationsFromWire(*list);
  if (!revocations.ok()) {
    return revocations.status();
  }
  auto set = std::make_shared<const x509::RevocationSet>(*std::move(revocations));
  absl::Status signer = CheckSigner(*path, *set);
  if (signer.ok() && set_ != nullptr) {
    signer = CheckSigner(*path, *set_);
  }
  if (!signer.ok()) {
    return signer;
  }
  set_ = std::move(set);
  version_ = offered;
  return true;
}

absl::Status IssuedRevocations::Restore(const v1::SignedRevocations& wire,
                                        const std::optional<x509::TrustDomain>& trust_domain,
                                        bool same_issuer) {
  const absl::StatusOr<v1::RevocationList> list = ParseList(wire.list());
  if (!list.ok()) {
    return list.status();
  }
  if (trust_domain.has_value() && list->trust_domain() != trust_domain->name()) {
    return absl::FailedPreconditionError(
        base::StrCat("it is of the trust domain '", base::Printable(list->trust_domain()), "'"));
  }
  absl::StatusOr<std::vector<x509::Revocation>> revocations = RevocationsFromWire(*list);
  if (!revocations.ok()) {
    return revocations.status();
  }
  set_ = std::make_shared<const x509::RevocationSet>(*std::move(revocations));
  version_ = same_issuer ? std::optional(FromWire(list->version())) : std::nullopt;
  return absl::OkStatus();
}

std::string IssuedRevocations::WhyOwnIsRevoked(const x509::Svid& svid) const {
  if (set_ == nullptr) {
    return {};
  }
  x509::VerifiedPeer own{svid.id(), {}, {}, svid.serial(), {}, {}};
  own.key_sha256 = x509::Sha256OfKey(svid.leaf());
  for (const x509::X509Ptr& certificate : svid.chain()) {
    own.chain_sha256.push_back(x509::Sha256OfCertificate(certificate.get()));
  }
  return set_->WhyRevoked(own).value_or("");
}

}  // namespace postern::identity
