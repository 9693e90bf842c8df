// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::fakes {

// The system's clocks, which a test can set and let sleep: for whole programs in this process,
// whose timers run in real time. Any thread.
class ShiftedClock final : public base::Clock {
 public:
  absl::Time Now() const override { return system_.Now() + Of(slept_) + Of(set_); }
  absl::Duration SinceBoot() const override { return system_.SinceBoot() + Of(slept_); }
  absl::Duration Awake() const override { return system_.Awake(); }

  // The machine was suspended for so long.
  void Sleep(absl::Duration by) { slept_ += absl::ToInt64Nanoseconds(by); }
  // The wall clock is so far ahead of the system's (and of what passed in Sleep).
  void SetAhead(absl::Duration by) { set_ = absl::ToInt64Nanoseconds(by); }

 private:
  static absl::Duration Of(const std::atomic<int64_t>& nanoseconds) {
    return absl::Nanoseconds(nanoseconds.load());
  }
  const base::Clock& system_ = base::Clock::System();
  std::atomic<int64_t> slept_{0};
  std::atomic<int64_t> set_{0};
};

}  // namespace postern::fakes
