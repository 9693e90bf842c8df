// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "proxy/net/timer.h"

namespace postern::identity {

// Calls back once when the clock that goes on through suspend has reached a moment. libuv's own
// timers stand still while a machine sleeps, so this one looks at the clock every kLook. Main loop;
// not to be destroyed inside its callback.
class DeadlineTimer {
 public:
  static constexpr absl::Duration kLook = absl::Seconds(5);

  DeadlineTimer(net::Loop& loop, const base::Clock& clock, std::function<void()> callback);

  void SetAt(absl::Duration due);  // SinceBoot; replaces what was set
  void SetAfter(absl::Duration wait) { SetAt(clock_.SinceBoot() + wait); }
  void Stop();
  std::optional<absl::Duration> due() const { return due_; }

 private:
  void Arm();
  const base::Clock& clock_;
  std::function<void()> callback_;
  std::optional<absl::Duration> due_;
  net::Timer timer_;
};

}  // namespace postern::identity
