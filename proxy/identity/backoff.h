// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "absl/time/time.h"

namespace postern::identity {

// A number in [0, 1), evenly spread. Injected so that tests decide.
using RandomFraction = std::function<double()>;

// The process's own source of RandomFraction, seeded by the system. Main loop's thread only.
RandomFraction SystemRandom();

// How long to wait after the n-th failure in a row: 1 s, 2 s, 4 s, ... up to a cap, of which
// between half and all is waited, so that a thousand proxies that lost the same issuer do not come
// back together. A value; one for each thing that is retried.
class Backoff {
 public:
  static constexpr absl::Duration kFirst = absl::Seconds(1);
  static constexpr absl::Duration kLongest = absl::Seconds(60);
  static constexpr absl::Duration kShortest = absl::Milliseconds(200);

  explicit Backoff(RandomFraction random) : random_(std::move(random)) {}

  // The delay after one more failure; never more than `cap`, and never less than kShortest.
  absl::Duration Next(absl::Duration cap = kLongest);
  void Reset() { failures_ = 0; }
  int failures() const { return failures_; }

 private:
  RandomFraction random_;
  int failures_ = 0;
};

}  // namespace postern::identity
