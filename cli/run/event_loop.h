// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// Waits for descriptors and times, on one thread, which is also the only one that calls it. A
// handler may be called once more than there is something to do: all descriptors are non-blocking.
class EventLoop {
 public:
  using Handler = std::function<void()>;

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();

  // Calls `handler` while `fd` is ready for `events` (EPOLLIN, EPOLLOUT; errors and ends count).
  // Replaces an earlier one. The descriptor stays the caller's, and must be forgotten before it is
  // closed.
  void Watch(int fd, uint32_t events, Handler handler);
  void Forget(int fd);

  // Calls `handler` once, `delay` from now. The number is for Cancel; never 0.
  uint64_t After(std::chrono::milliseconds delay, Handler handler);
  void Cancel(uint64_t timer);

  // Runs until Stop, which ends it after the handler that calls it.
  void Run();
  void Stop() { running_ = false; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Timer {
    uint64_t number;
    Handler handler;
  };
  explicit EventLoop(base::UniqueFd epoll) : epoll_(std::move(epoll)) {}
  void CallTimers();
  int Patience() const;

  base::UniqueFd epoll_;
  std::unordered_map<int, std::shared_ptr<Handler>> handlers_;
  std::multimap<Clock::time_point, Timer> timers_;
  uint64_t last_timer_ = 0;
  bool running_ = false;
};

}  // namespace postern::run
