// SPDX-License-Identifier: Apache-2.0
// The metrics of what is fetched, checked, renewed and published.
#include <limits>

#include "proxy/identity/identity_manager.h"

namespace postern::identity {
namespace {

constexpr size_t kMostExpiries = 48;  // of certificates, as metric series

}  // namespace

telemetry::IdentityGauges IdentityManager::gauges() const {
  const IdentityStatus now = status();
  telemetry::IdentityGauges gauges;
  for (const CertificateFacts& one : now.certificates) {
    if (gauges.expiries.size() < kMostExpiries) {
      gauges.expiries.push_back({one.kind, one.sha256, one.not_after});
    }
  }
  gauges.renewals_ok = now.renewals_ok;
  gauges.renewals_failed = now.renewals_failed;
  gauges.revocation_epoch = now.revocation_version.epoch;
  gauges.revocation_sequence = now.revocation_version.sequence;
  gauges.revocations = now.revocations;
  gauges.crl_entries = now.crl_entries;
  gauges.crls_stale = now.crls_stale;
  gauges.roots_past_half_life = now.roots_past_half_life;
  gauges.bundle_epoch = now.bundle_version.epoch;
  gauges.bundle_sequence = now.bundle_version.sequence;
  gauges.policy_epoch = now.policy_version.epoch;
  gauges.policy_sequence = now.policy_version.sequence;
  if (now.source == "issuer") {
    // Infinite: from a state directory that does not say when it was confirmed.
    constexpr double kNever = std::numeric_limits<double>::infinity();
    for (const TrustKind kind : kTrustKinds) {
      const auto& age = now.ages[static_cast<size_t>(kind)];
      gauges.trust_ages.emplace_back(Token(kind),
                                     age.has_value() ? absl::ToDoubleSeconds(*age) : kNever);
    }
    gauges.bundle_age_seconds = now.generation == 0 ? 0 : gauges.trust_ages.front().second;
  }
  gauges.trust_is_stale = !now.stale_error.empty();
  gauges.clock_skew_seconds = absl::ToDoubleSeconds(now.clock_skew);
  gauges.issuer_connected = now.issuer_connected;
  gauges.reload_failures = now.reload_failures;
  return gauges;
}

}  // namespace postern::identity
