// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"

namespace postern::x509 {

// The roots that may speak for one trust domain. Immutable; move-only.
class TrustBundle {
 public:
  // InvalidArgument: no root, one that is no CA, or a weak key (CheckKeyStrength).
  static absl::StatusOr<TrustBundle> Create(TrustDomain trust_domain, std::vector<X509Ptr> roots);
  static absl::StatusOr<TrustBundle> FromPem(TrustDomain trust_domain, std::string_view pem);

  const TrustDomain& trust_domain() const { return trust_domain_; }
  const std::vector<X509Ptr>& roots() const { return roots_; }
  // Former roots, by the SHA-256 of their DER, that were taken out in order: they vouch for nothing
  // new, and connections that stand on them go on. Set before the bundle is shared.
  void SetRetiredRoots(std::vector<base::Sha256Digest> digests) {
    retired_roots_ = std::move(digests);
  }
  const std::vector<base::Sha256Digest>& retired_roots() const { return retired_roots_; }
  // For verification; holds the roots as trust anchors. Owned by the bundle, safe to share.
  X509_STORE* store() const { return store_.get(); }

 private:
  TrustBundle(TrustDomain trust_domain, std::vector<X509Ptr> roots, X509StorePtr store);
  TrustDomain trust_domain_;
  std::vector<X509Ptr> roots_;
  std::vector<base::Sha256Digest> retired_roots_;
  X509StorePtr store_;
};

// The bundle of each known trust domain. Immutable; shared as shared_ptr<const TrustBundleSet>.
// Roots of several trust domains are never pooled (SPIFFE X509-SVID section 5).
class TrustBundleSet {
 public:
  TrustBundleSet() = default;
  explicit TrustBundleSet(std::vector<TrustBundle> bundles);

  // A SPIFFE bundle map {"trust_domains": {name: {"keys": [...]}}}, or one SPIFFE bundle document
  // {"keys": [...]}, which then belongs to `own`. InvalidArgument names the trust domain and the
  // key that is wrong; duplicate JSON keys are refused.
  static absl::StatusOr<TrustBundleSet> FromSpiffeJson(std::string_view json,
                                                       const TrustDomain& own);
  std::string ToSpiffeJson() const;

  // What a --bundle FILE holds: PEM (the roots of `own`) or SPIFFE JSON, told apart by its first
  // byte.
  static absl::StatusOr<TrustBundleSet> FromFileContent(std::string_view content,
                                                        const TrustDomain& own);

  // Null when the trust domain is unknown.
  const TrustBundle* Find(std::string_view trust_domain_name) const;
  const std::map<std::string, TrustBundle, std::less<>>& bundles() const { return bundles_; }
  bool empty() const { return bundles_.empty(); }

 private:
  std::map<std::string, TrustBundle, std::less<>> bundles_;
};

}  // namespace postern::x509
