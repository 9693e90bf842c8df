// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace postern::identity {

// "this clock is 7 min ahead of the issuer's", "this clock agrees with the issuer's". `skew`: this
// clock minus the issuer's.
std::string SkewText(absl::Duration skew);

// What the issuer's messages say about time, for those who judge connections: how far this
// machine's clock is off, and until when what it decides counts as confirmed (--max-stale). Written
// by the main loop, read from any thread; a few nanoseconds old at worst.
class TrustClock {
 public:
  // `max_stale`: infinite without --max-stale.
  explicit TrustClock(absl::Duration max_stale = absl::InfiniteDuration())
      : max_stale_(max_stale) {}

  // This clock minus the issuer's; nullopt: not measured.
  void SetSkew(std::optional<absl::Duration> skew);
  std::optional<absl::Duration> skew() const;

  // When all was last confirmed, on the clock that goes on through suspend; nullopt: never.
  void SetConfirmed(std::optional<absl::Duration> since_boot);
  std::optional<absl::Duration> confirmed() const;

  // Whether all was confirmed no longer than `age` before `since_boot`.
  bool WasConfirmedWithin(absl::Duration age, absl::Duration since_boot) const;

  absl::Duration max_stale() const { return max_stale_; }
  // Whether new connections are to be refused at `since_boot`.
  bool IsStale(absl::Duration since_boot) const;

  // "; this clock is 7 min ahead of the issuer's", for the end of an error about a certificate's
  // time; empty when nothing was measured.
  std::string SkewRemark() const;
  // Why IsStale, as a sentence.
  std::string StaleText(absl::Duration since_boot) const;

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::min();
  const absl::Duration max_stale_;
  std::atomic<int64_t> skew_ns_{kNone};
  std::atomic<int64_t> confirmed_ns_{kNone};
};

}  // namespace postern::identity
