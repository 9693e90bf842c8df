// SPDX-License-Identifier: Apache-2.0
#include "common/x509/trust_bundle.h"

#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

absl::Status CheckRoot(const X509* root) {
  if (absl::Status status = CheckEncoding(root); !status.ok()) {
    return status;
  }
  if (!IsCa(root) || !MaySignCertificates(root)) {
    return absl::InvalidArgumentError("is no CA certificate");
  }
  return CheckKeyStrength(X509_get0_pubkey(root));
}

absl::StatusOr<X509StorePtr> MakeStore(const std::vector<X509Ptr>& roots) {
  X509StorePtr store(X509_STORE_new());
  if (store == nullptr) {
    return OpensslFailure("cannot make a certificate store");
  }
  for (const X509Ptr& root : roots) {
    if (X509_STORE_add_cert(store.get(), root.get()) != 1) {
      return OpensslFailure("cannot add a root to its store");
    }
  }
  return store;
}

}  // namespace

TrustBundle::TrustBundle(TrustDomain trust_domain, std::vector<X509Ptr> roots, X509StorePtr store)
    : trust_domain_(std::move(trust_domain)), roots_(std::move(roots)), store_(std::move(store)) {}

absl::StatusOr<TrustBundle> TrustBundle::Create(TrustDomain trust_domain,
                                                std::vector<X509Ptr> roots) {
  const ErrorQueueGuard guard;
  if (roots.empty()) {
    return absl::InvalidArgumentError(
        base::StrCat("the bundle of '", trust_domain.name(), "' holds no root"));
  }
  for (size_t i = 0; i < roots.size(); ++i) {
    if (absl::Status status = CheckRoot(roots[i].get()); !status.ok()) {
      return absl::InvalidArgumentError(base::StrCat(
          "root ", i + 1, " of '", trust_domain.name(), "' (",
          base::Printable(SubjectText(roots[i].get()), 128), "): ", base::Message(status)));
    }
  }
  absl::StatusOr<X509StorePtr> store = MakeStore(roots);
  if (!store.ok()) {
    return store.status();
  }
  return TrustBundle(std::move(trust_domain), std::move(roots), *std::move(store));
}

absl::StatusOr<TrustBundle> TrustBundle::FromPem(TrustDomain trust_domain, std::string_view pem) {
  absl::StatusOr<std::vector<X509Ptr>> roots = CertificatesFromPem(pem);
  if (!roots.ok()) {
    return roots.status();
  }
  return Create(std::move(trust_domain), *std::move(roots));
}

TrustBundleSet::TrustBundleSet(std::vector<TrustBundle> bundles) {
  for (TrustBundle& bundle : bundles) {
    std::string name = bundle.trust_domain().name();
    bundles_.insert_or_assign(std::move(name), std::move(bundle));
  }
}

absl::StatusOr<TrustBundleSet> TrustBundleSet::FromSpiffeJson(std::string_view json,
                                                              const TrustDomain& own) {
  absl::StatusOr<std::vector<TrustBundle>> bundles = BundlesFromSpiffeJson(json, own);
  if (!bundles.ok()) {
    return bundles.status();
  }
  return TrustBundleSet(*std::move(bundles));
}

std::string TrustBundleSet::ToSpiffeJson() const {
  return BundlesToSpiffeJson(*this);
}

absl::StatusOr<TrustBundleSet> TrustBundleSet::FromFileContent(std::string_view content,
                                                               const TrustDomain& own) {
  const size_t first = content.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (first == std::string_view::npos) {
    return absl::InvalidArgumentError("the bundle is empty");
  }
  if (content[first] == '{') {
    return FromSpiffeJson(content.substr(first), own);
  }
  absl::StatusOr<TrustBundle> bundle = TrustBundle::FromPem(own, content);
  if (!bundle.ok()) {
    return bundle.status();
  }
  std::vector<TrustBundle> bundles;
  bundles.push_back(*std::move(bundle));
  return TrustBundleSet(std::move(bundles));
}

const TrustBundle* TrustBundleSet::Find(std::string_view trust_domain_name) const {
  const auto found = bundles_.find(trust_domain_name);
  return found == bundles_.end() ? nullptr : &found->second;
}

}  // namespace postern::x509
