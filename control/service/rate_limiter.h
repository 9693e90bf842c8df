// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::service {

// A token bucket for each source: `rate` a second, a burst of one second's worth. Those of one
// source that find it empty are told to come one after the other, each when its token will be
// there. Holds a bounded number of sources; when it is full, those whose bucket has filled up again
// are forgotten, and if there are none, unknown sources share one bucket, so that a flood of
// addresses costs no memory and does not open the limit. Thread-safe.
class RateLimiter {
 public:
  static constexpr size_t kMaxSources = 65536;
  static constexpr absl::Duration kLongestWait = absl::Seconds(60);

  // `rate` 0: everybody passes.
  RateLimiter(double rate, const base::Clock& clock) : rate_(rate), clock_(clock) {}

  // Zero: go on. Otherwise how long to wait before asking again.
  absl::Duration Take(const std::string& source);

 private:
  struct Bucket {
    double tokens = 0;
    absl::Duration filled_at;
    absl::Duration promised_until;  // SinceBoot: the next one turned away comes after it
  };
  void Forget(absl::Duration now);

  const double rate_;
  const base::Clock& clock_;
  std::mutex mutex_;
  absl::flat_hash_map<std::string, Bucket> buckets_;
};

}  // namespace postern::service
