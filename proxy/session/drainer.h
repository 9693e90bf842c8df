// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::session {

// The end of a worker in good order: inbound goes on accepting for the delay, then stops; when no
// connection is left, or at the deadline after the rest was ended, it is done. Worker's thread.
class Drainer {
 public:
  struct Hooks {
    std::function<void()> stop_inbound;    // close the inbound listeners
    std::function<void()> end_everything;  // the deadline has come: close all that is open
    std::function<size_t()> open;          // connections
  };
  Drainer(net::Loop& loop, Hooks hooks);

  // A second call can only shorten what is running. Once it was done, it begins anew for what was
  // dialled since, as outbound goes on: then that alone is waited for.
  void Begin(std::chrono::milliseconds delay, std::chrono::milliseconds deadline,
             std::function<void()> done);
  // A connection has ended.
  void OnSessionGone();

 private:
  enum class State : uint8_t { kIdle, kAccepting, kWaiting, kDone };

  void OnDelay();
  void OnDeadline();
  void Finish();

  net::Loop& loop_;
  Hooks hooks_;
  net::Timer delay_;
  net::Timer deadline_;
  std::chrono::milliseconds stops_at_{0}, ends_at_{0};  // on the loop's clock
  std::vector<std::function<void()>> done_;
  State state_ = State::kIdle;
};

}  // namespace postern::session
