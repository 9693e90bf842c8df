// SPDX-License-Identifier: Apache-2.0
#include "cli/run/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"

namespace postern::run {

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  base::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.is_open()) {
    return absl::ErrnoToStatus(errno, "epoll_create1");
  }
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll)));
}

void EventLoop::Watch(int fd, uint32_t events, Handler handler) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  const bool known = handlers_.contains(fd);
  handlers_[fd] = std::make_shared<Handler>(std::move(handler));
  if (epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0) {
    // Out of memory or watches: whoever waits is served by its deadline instead.
    handlers_.erase(fd);
  }
}

void EventLoop::Forget(int fd) {
  if (handlers_.erase(fd) > 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

uint64_t EventLoop::After(std::chrono::milliseconds delay, Handler handler) {
  timers_.emplace(Clock::now() + delay, Timer{++last_timer_, std::move(handler)});
  return last_timer_;
}

void EventLoop::Cancel(uint64_t timer) {
  std::erase_if(timers_, [timer](const auto& entry) { return entry.second.number == timer; });
}

void EventLoop::CallTimers() {
  while (running_ && !timers_.empty() && timers_.begin()->first <= Clock::now()) {
    const Handler handler = std::move(timers_.begin()->second.handler);
    timers_.erase(timers_.begin());
    handler();
  }
}

int EventLoop::Patience() const {
  if (timers_.empty()) {
    return -1;
  }
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - Clock::now());
  constexpr int64_t kLongest = 60'000;
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, kLongest));
}

void EventLoop::Run() {
  running_ = true;
  std::array<epoll_event, 64> events{};
  while (running_) {
    const int ready =
        epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), Patience());
    for (int i = 0; i < ready && running_; ++i) {
      const auto found = handlers_.find(events[static_cast<size_t>(i)].data.fd);
      if (found != handlers_.end()) {
        // A handler may forget itself.
        const std::shared_ptr<Handler> handler = found->second;
        (*handler)();
      }
    }
    CallTimers();
  }
}

}  // namespace postern::run
