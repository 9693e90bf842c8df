// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/renewal_schedule.h"

#include <algorithm>
#include <utility>

namespace postern::identity {
namespace {

constexpr double kEarliestFraction = 0.40;
constexpr double kFractionSpread = 0.20;
constexpr int kPartOfTheRest = 4;
constexpr double kRetryAfterSpread = 0.1;

}  // namespace

RenewalSchedule::RenewalSchedule(RandomFraction random)
    : random_(std::move(random)), backoff_(random_) {}

void RenewalSchedule::OnCertificate(absl::Duration now, absl::Duration age,
                                    absl::Duration lifetime) {
  backoff_.Reset();
  const absl::Duration whole = std::max(lifetime, absl::ZeroDuration());
  const absl::Duration issued = now - std::clamp(age, absl::ZeroDuration(), whole);
  ends_ = issued + whole;
  // A clock that is almost a lifetime ahead would have every certificate renewed as it comes.
  const absl::Duration soonest = age > absl::ZeroDuration() ? now : now + kSoonest;
  due_ = std::max(soonest, issued + whole * (kEarliestFraction + kFractionSpread * random_()));
}

void RenewalSchedule::OnFailure(absl::Duration now, absl::Duration retry_after) {
  const absl::Duration left =
      ends_.has_value() ? std::max(*ends_ - now, absl::ZeroDuration()) : absl::ZeroDuration();
  const absl::Duration cap =
      left > absl::ZeroDuration() ? left / kPartOfTheRest : kLongestWithoutCertificate;
  absl::Duration wait = backoff_.Next(cap);
  if (retry_after > absl::ZeroDuration()) {
    // Later than asked for, by a little that differs from proxy to proxy.
    wait = std::clamp(retry_after, Backoff::kShortest, kLongestRetryAfter) *
           (1.0 + kRetryAfterSpread * random_());
  }
  due_ = now + wait;
}

void RenewalSchedule::OnClockBreak(absl::Duration now, absl::Duration left) {
  backoff_.Reset();
  ends_ = now + std::max(left, absl::ZeroDuration());
  due_ = now + kWakeSpread * random_();
}

}  // namespace postern::identity
