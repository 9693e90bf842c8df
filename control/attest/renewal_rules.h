// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/time/time.h"

namespace postern::attest {

// Who may renew with the certificate that they hold. A value, made once from the configuration.
struct RenewalRules {
  // The certificate log forgets what ended a week ago.
  static constexpr absl::Duration kMostGrace = absl::Hours(6 * 24);

  // How long after its end a certificate is still good for a renewal, so that a machine that slept,
  // or whose issuer was away, comes back by itself. Nullopt: for as long as it lived. Zero: not at
  // all. At most kMostGrace.
  std::optional<absl::Duration> grace;

  absl::Duration GraceOf(absl::Duration lifetime) const { return grace.value_or(lifetime); }
};

}  // namespace postern::attest
