// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/trust_bundle.h"

namespace postern::x509 {

// The JSON side of TrustBundleSet (SPIFFE Trust Domain and Bundle, section 4); use its methods.
// A trust domain whose key list is empty, or has no X.509 key, trusts nothing and gets no bundle.
absl::StatusOr<std::vector<TrustBundle>> BundlesFromSpiffeJson(std::string_view json,
                                                               const TrustDomain& own);
std::string BundlesToSpiffeJson(const TrustBundleSet& bundles);

// One SPIFFE bundle document, as a bundle endpoint serves it (section 4.1).
struct SpiffeBundle {
  std::optional<TrustBundle> bundle;           // nullopt: it trusts nothing
  std::optional<uint64_t> sequence;            // grows with every change
  std::optional<absl::Duration> refresh_hint;  // how often to look for a newer one; positive
};

// A document of exactly this trust domain. InvalidArgument: whatever BundlesFromSpiffeJson refuses,
// a bundle map (a document must not choose its trust domain), more than kMaxRootsOfDocument roots,
// or a sequence or hint that is no number of its range.
absl::StatusOr<SpiffeBundle> SpiffeBundleFromJson(std::string_view json,
                                                  const TrustDomain& trust_domain);
inline constexpr size_t kMaxRootsOfDocument = 64;

// Its reverse. An unset sequence or hint is left out.
std::string SpiffeBundleToJson(const TrustBundle& bundle, std::optional<uint64_t> sequence,
                               std::optional<absl::Duration> refresh_hint);

}  // namespace postern::x509
