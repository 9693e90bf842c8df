// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/deadline_timer.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace postern::identity {

DeadlineTimer::DeadlineTimer(net::Loop& loop, const base::Clock& clock,
                             std::function<void()> callback)
    : clock_(clock), callback_(std::move(callback)), timer_(loop, [this] { Arm(); }) {}

void DeadlineTimer::SetAt(absl::Duration due) {
  due_ = due;
  const absl::Duration left = std::clamp(due - clock_.SinceBoot(), absl::ZeroDuration(), kLook);
  // Rounded up: a timer that fires early would only look once more.
  timer_.Start(absl::ToChronoMilliseconds(absl::Ceil(left, absl::Milliseconds(1))));
}

void DeadlineTimer::Stop() {
  due_.reset();
  timer_.Stop();
}

void DeadlineTimer::Arm() {
  if (!due_.has_value()) {
    return;
  }
  if (clock_.SinceBoot() < *due_) {
    SetAt(*due_);
    return;
  }
  due_.reset();
  callback_();
}

}  // namespace postern::identity
