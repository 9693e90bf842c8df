// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/clock_watch.h"

#include <utility>

namespace postern::identity {

ClockWatch::ClockWatch(net::Loop& loop, const base::Clock& clock,
                       std::function<void(const Break&)> on_break)
    : clock_(clock), on_break_(std::move(on_break)), timer_(loop, [this] { Look(); }) {}

void ClockWatch::Start() {
  last_ = Read();
  timer_.StartRepeating(kLook);
}

ClockWatch::Reading ClockWatch::Read() const {
  return {clock_.Now(), clock_.SinceBoot(), clock_.Awake()};
}

void ClockWatch::Look() {
  const Reading now = Read();
  const absl::Duration passed = now.since_boot - last_.since_boot;
  const Break found{.set = (now.wall - last_.wall) - passed,
                    .slept = passed - (now.awake - last_.awake)};
  last_ = now;
  if (absl::AbsDuration(found.set) >= kNotable || found.slept >= kNotable) {
    on_break_(found);
  }
}

}  // namespace postern::identity
