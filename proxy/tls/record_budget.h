// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace postern::tls {

// How often a peer may have us do something: a bucket that refills with time, so that a flood ends
// and a slow trickle goes on for ever. A value.
template <int kCapacity, int kPerSecond>
class Budget {
 public:
  // Takes one; false when the bucket is empty.
  bool Take(absl::Duration now) {
    if (last_ != absl::InfiniteDuration()) {
      tokens_ = std::min(double{kCapacity},
                         tokens_ + absl::ToDoubleSeconds(now - last_) * double{kPerSecond});
    }
    last_ = now;
    if (tokens_ < 1.0) {
      return false;
    }
    tokens_ -= 1.0;
    return true;
  }

 private:
  double tokens_ = kCapacity;
  absl::Duration last_ = absl::InfiniteDuration();  // never yet
};

// Records without application data (KeyUpdate, tickets): one update a second goes on for ever.
using RecordBudget = Budget<64, 10>;
// Requests of a server that the client prove itself again: each costs a signature.
using RequestBudget = Budget<16, 1>;

}  // namespace postern::tls
