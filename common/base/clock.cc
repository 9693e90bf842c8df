// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <ctime>

#include "absl/time/clock.h"

namespace postern::base {
namespace {

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }

  absl::Duration SinceBoot() const override {
    timespec now{};
    // Fails only for an unknown clock; CLOCK_BOOTTIME is there since Linux 2.6.39.
    clock_gettime(CLOCK_BOOTTIME, &now);
    return absl::DurationFromTimespec(now);
  }
};

}  // namespace

const Clock& Clock::System() {
  static const SystemClock clock;
  return clock;
}

}  // namespace postern::base
