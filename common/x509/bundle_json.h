// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/x509/trust_bundle.h"

namespace postern::x509 {

// The JSON side of TrustBundleSet (SPIFFE Trust Domain and Bundle, section 4); use its methods.
// A trust domain whose key list is empty, or has no X.509 key, trusts nothing and gets no bundle.
absl::StatusOr<std::vector<TrustBundle>> BundlesFromSpiffeJson(std::string_view json,
                                                               const TrustDomain& own);
std::string BundlesToSpiffeJson(const TrustBundleSet& bundles);

}  // namespace postern::x509
