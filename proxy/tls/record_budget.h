// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace postern::tls {

// How many records without application data (KeyUpdate, tickets) a peer may send: a bucket that
// refills with time, so that a flood ends and one update a second goes on for ever. A value.
class RecordBudget {
 public:
  // Takes one; false when the bucket is empty.
  bool Take(absl::Duration now) {
    if (last_ != absl::InfiniteDuration()) {
      tokens_ = std::min(kCapacity, tokens_ + absl::ToDoubleSeconds(now - last_) * kPerSecond);
    }
    last_ = now;
    if (tokens_ < 1.0) {
      return false;
    }
    tokens_ -= 1.0;
    return true;
  }

 private:
  static constexpr double kCapacity = 64.0;
  static constexpr double kPerSecond = 10.0;
  double tokens_ = kCapacity;
  absl::Duration last_ = absl::InfiniteDuration();  // never yet
};

}  // namespace postern::tls
