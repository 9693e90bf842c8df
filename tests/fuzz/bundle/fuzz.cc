// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

#include <openssl/err.h>

#include <string_view>

#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "common/x509/trust_bundle.h"

using postern::x509::TrustBundleSet;
using postern::x509::TrustDomain;

// What a --bundle FILE may hold, and the readers of its PEM form.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const TrustDomain own = TrustDomain::Parse("example.org").value();
  const std::string_view content(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<TrustBundleSet> set = TrustBundleSet::FromFileContent(content, own);
  POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  if (set.ok()) {
    for (const auto& [name, bundle] : set->bundles()) {
      POSTERN_FUZZ_CHECK(TrustDomain::Parse(name).ok());
      POSTERN_FUZZ_CHECK(!bundle.roots().empty());
      for (const postern::x509::X509Ptr& root : bundle.roots()) {
        POSTERN_FUZZ_CHECK(postern::x509::IsCa(root.get()));
        (void)postern::x509::SubjectText(root.get());
        (void)postern::x509::LeafSpiffeId(root.get());
      }
    }
    const absl::StatusOr<TrustBundleSet> again =
        TrustBundleSet::FromFileContent(set->ToSpiffeJson(), own);
    POSTERN_FUZZ_CHECK(again.ok() && again->bundles().size() == set->bundles().size());
  }
  (void)postern::x509::PrivateKeyFromPem(content);
  POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  return 0;
}
