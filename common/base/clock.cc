// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <ctime>

#include "absl/time/clock.h"

namespace postern::base {
namespace {

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }

  absl::Duration SinceBoot() const override { return Read(CLOCK_BOOTTIME); }
  absl::Duration Awake() const override { return Read(CLOCK_MONOTONIC); }

 private:
  // Fails only for an unknown clock; CLOCK_BOOTTIME is there since Linux 2.6.39.
  static absl::Duration Read(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return absl::DurationFromTimespec(now);
  }
};

}  // namespace

const Clock& Clock::System() {
  static const SystemClock clock;
  return clock;
}

}  // namespace postern::base
