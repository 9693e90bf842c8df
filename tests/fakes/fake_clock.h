// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::fakes {

// A clock that stands still until the test moves it. Any thread.
class FakeClock final : public base::Clock {
 public:
  // 2026-01-01 00:00:00 UTC unless the test says otherwise.
  FakeClock() : FakeClock(absl::FromUnixSeconds(1767225600)) {}
  explicit FakeClock(absl::Time now) : now_(now) {}

  absl::Time Now() const override {
    const std::lock_guard lock(mutex_);
    return now_;
  }
  absl::Duration SinceBoot() const override {
    const std::lock_guard lock(mutex_);
    return since_boot_;
  }
  absl::Duration Awake() const override {
    const std::lock_guard lock(mutex_);
    return awake_;
  }

  // Time goes by: every clock moves.
  void Advance(absl::Duration by) {
    const std::lock_guard lock(mutex_);
    now_ += by;
    since_boot_ += by;
    awake_ += by;
  }
  // The machine is suspended for so long.
  void Sleep(absl::Duration by) {
    const std::lock_guard lock(mutex_);
    now_ += by;
    since_boot_ += by;
  }
  // The wall clock is set, as NTP or an administrator would: no time goes by.
  void SetNow(absl::Time now) {
    const std::lock_guard lock(mutex_);
    now_ = now;
  }

 private:
  mutable std::mutex mutex_;
  absl::Time now_;                                   // guarded by mutex_
  absl::Duration since_boot_ = absl::Seconds(1000);  // guarded by mutex_
  absl::Duration awake_ = absl::Seconds(500);        // guarded by mutex_
};

}  // namespace postern::fakes
