// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::testing {

// Runs `loop` on this thread until `condition` holds, which is looked at every few milliseconds.
// False: it did not within `timeout`. A header alone, so that only its users link the loop.
inline bool RunUntil(net::Loop& loop, const std::function<bool()>& condition,
                     std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
  constexpr std::chrono::milliseconds kLook{5};
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  bool held = condition();
  net::Timer look(loop, [&] {
    held = condition();
    if (held || std::chrono::steady_clock::now() >= deadline) {
      loop.Stop();
    }
  });
  if (!held) {
    look.StartRepeating(kLook);
    loop.Run();
  }
  return held;
}

// Runs `loop` for a while: to show that something does not happen.
inline void RunFor(net::Loop& loop, std::chrono::milliseconds time) {
  RunUntil(
      loop, [] { return false; }, time);
}

}  // namespace postern::testing
