// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <random>

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::service {

// When those whom a busy issuer turns away are to come back: each gets a place of its own in the
// time to come, one after the other, at the pace at which the issuer has been working. So a herd
// that comes after an outage is spread over just the time that serving it takes, and none of it
// comes twice for nothing. Thread-safe.
class ComeBack {
 public:
  static constexpr absl::Duration kSoonest = absl::Milliseconds(500);
  // Nobody is sent away for longer: those beyond are spread over the second half of it by chance.
  static constexpr absl::Duration kLongest = absl::Seconds(60);
  // Of the pace that was seen, so much is promised; the rest is for those who come unasked.
  static constexpr double kPromised = 0.8;

  explicit ComeBack(const base::Clock& clock);

  // One request was served: it took so long, and so many were at work at its end, itself included.
  void OnServed(absl::Duration took, int at_work);

  // For one who is turned away: how long to wait.
  absl::Duration Next();

  // What one request takes of the whole issuer; by Little's law, the time that it took divided by
  // how many shared the issuer meanwhile. For tests.
  absl::Duration apart() const;

 private:
  static constexpr absl::Duration kLeastApart = absl::Microseconds(200);
  static constexpr absl::Duration kMostApart = absl::Milliseconds(50);
  static constexpr double kWeightOfNewest = 0.05;

  const base::Clock& clock_;
  mutable std::mutex mutex_;  // guards all below
  absl::Duration apart_ = absl::Milliseconds(5);
  absl::Duration promised_until_ = -absl::InfiniteDuration();  // SinceBoot
  std::mt19937_64 random_;
};

}  // namespace postern::service
