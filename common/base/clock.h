// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

namespace postern::base {

// Where the product reads time from. Injected, so that tests decide what time it is
// (tests/fakes/fake_clock.h). Implementations are safe to call from any thread.
class Clock {
 public:
  virtual ~Clock() = default;

  // The wall clock: certificate validity is judged by it. May jump.
  virtual absl::Time Now() const = 0;

  // Time since an arbitrary start, on a clock that goes on while the machine is suspended
  // (CLOCK_BOOTTIME): timers and ages are counted by it. Never goes back.
  virtual absl::Duration SinceBoot() const = 0;

  // Time since an arbitrary start, on a clock that stands still while the machine is suspended
  // (CLOCK_MONOTONIC): beside SinceBoot it tells of a sleep.
  virtual absl::Duration Awake() const = 0;

  // The system's clocks; lives for ever.
  static const Clock& System();
};

}  // namespace postern::base
