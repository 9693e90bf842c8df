// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "proxy/net/timer.h"

namespace postern::identity {

// Looks at the machine's clocks every second and says when they did not go on together: the wall
// clock was set, or the machine slept. It compares, and waits for no event: there is none inside a
// container whose host slept, nor for a virtual machine that was paused and put right afterwards.
// Main loop; not to be destroyed inside its callback.
class ClockWatch {
 public:
  static constexpr std::chrono::milliseconds kLook{1000};
  // Less is a clock that is slewed, or a loop that was busy between two readings.
  static constexpr absl::Duration kNotable = absl::Seconds(5);

  // What happened since the look before. At least one of the two is notable.
  struct Break {
    absl::Duration set;    // how far the wall clock was put forward; negative: back
    absl::Duration slept;  // how long the machine was suspended
  };

  ClockWatch(net::Loop& loop, const base::Clock& clock, std::function<void(const Break&)> on_break);

  void Start();

 private:
  struct Reading {
    absl::Time wall;
    absl::Duration since_boot;
    absl::Duration awake;
  };
  Reading Read() const;
  void Look();

  const base::Clock& clock_;
  const std::function<void(const Break&)> on_break_;
  net::Timer timer_;
  Reading last_;
};

}  // namespace postern::identity
