// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"

namespace postern::net {

// One event loop (libuv) and the thread that runs it. Everything made on a loop (Listener, Stream,
// Timer, Connector) belongs to that loop's thread; Post is the only way in from another.
class Loop {
 public:
  static absl::StatusOr<std::unique_ptr<Loop>> Create();
  ~Loop();  // closes what is left open; the loop must not be running
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs until Stop. Call from the thread that made the loop: libuv's io_uring rings are its.
  void Run();
  // Ends Run after the current callbacks. Any thread.
  void Stop();

  // Runs `task` on the loop's thread, in the order of posting. Any thread; a task posted after the
  // loop has stopped is destroyed unrun with the loop. Returns false once the loop is closing.
  bool Post(std::function<void()> task);

  // Runs `task` on this thread after the callbacks of this iteration: for destroying an object that
  // is on the stack. Loop thread only.
  void Defer(std::function<void()> task);

  // The time at which this iteration began, on a monotonic clock. Loop thread only.
  std::chrono::milliseconds Now() const;

  bool IsInLoopThread() const;

  // Calls `handler` on the loop when the process gets `signal_number`. One handler for each signal
  // and process.
  absl::Status OnSignal(int signal_number, std::function<void()> handler);

  // How many Listeners, Streams, Timers, Connectors and signals are open on this loop. Zero when
  // all were destroyed and the loop has turned once more: for tests of leaks. Loop thread only.
  size_t OpenHandles() const;

  struct Impl;
  Impl* impl() const { return impl_.get(); }  // for proxy/net alone

 private:
  explicit Loop(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::net
