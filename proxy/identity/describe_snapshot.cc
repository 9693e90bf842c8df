// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/describe_snapshot.h"

#include <string>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::identity {
namespace {

CertificateFacts FactsOf(const char* kind, const std::string& trust_domain, const X509* one) {
  CertificateFacts facts;
  facts.kind = kind;
  facts.trust_domain = trust_domain;
  facts.subject = x509::SubjectText(one);
  facts.serial = x509::SerialHex(one);
  facts.sha256 = base::ToHex(x509::Sha256OfCertificate(one));
  facts.not_before = x509::NotBefore(one);
  facts.not_after = x509::NotAfter(one);
  return facts;
}

}  // namespace

void DescribeSnapshot(const IdentitySnapshot& snapshot, IdentityStatus& status) {
  const std::string own(snapshot.svid->id().trust_domain_name());
  status.spiffe_id = snapshot.svid->id().uri();
  status.generation = snapshot.generation;
  status.obtained = snapshot.obtained;
  status.bundle_version = snapshot.bundle_version;
  const char* kind = "leaf";
  for (const auto& one : snapshot.svid->chain()) {
    status.certificates.push_back(FactsOf(std::exchange(kind, "intermediate"), own, one.get()));
  }
  std::vector<const x509::TrustBundle*> order;
  for (const auto& [name, bundle] : snapshot.bundles->bundles()) {
    status.trust_domains.push_back(name);
    order.insert(name == own ? order.begin() : order.end(), &bundle);
  }
  for (const x509::TrustBundle* bundle : order) {
    for (const auto& root : bundle->roots()) {
      status.certificates.push_back(FactsOf("root", bundle->trust_domain().name(), root.get()));
    }
  }
}

}  // namespace postern::identity
