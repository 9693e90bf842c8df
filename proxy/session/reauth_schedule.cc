// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/reauth_schedule.h"

#include <algorithm>

namespace postern::session {
namespace {

// Leaves of our issuers are backdated by so much, which is no part of their life.
constexpr absl::Duration kBackdated = absl::Minutes(2);
constexpr double kMostLeft = 0.3;
constexpr double kLeastLeft = 0.2;

}  // namespace

absl::Time FirstAsk(const x509::VerifiedPeer& peer, uint64_t spread) {
  const absl::Duration valid = peer.not_after - peer.not_before;
  const absl::Duration lifetime = valid > kBackdated ? valid - kBackdated : valid;
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;  // spreads numbers that follow each other
  constexpr unsigned kSpreadBits = 16;
  const double fraction =
      static_cast<double>((spread * kGolden) >> (64 - kSpreadBits)) / (1U << kSpreadBits);
  return peer.not_after - lifetime * (kMostLeft - (kMostLeft - kLeastLeft) * fraction);
}

absl::Duration AskAgainAfter(absl::Duration left) {
  if (left <= absl::ZeroDuration()) {
    return kPastExpiryPeriod;
  }
  return std::clamp(left / 4, absl::Seconds(1), absl::Minutes(1));
}

absl::Duration LookAgainAfter(unsigned looks) {
  return absl::Milliseconds(100) * (1U << std::min(looks, 5U));
}

}  // namespace postern::session
