// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "proxy/net/loop.h"

namespace postern::net {

// Calls back once, or again and again, on its loop's thread. Destroying it cancels; it may be
// destroyed or re-armed inside its own callback. Cheap to re-arm (no allocation after
// construction).
class Timer {
 public:
  Timer(Loop& loop, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Replaces what was armed.
  void Start(std::chrono::milliseconds delay);
  void StartRepeating(std::chrono::milliseconds period);
  void Stop();
  bool IsArmed() const;

 private:
  struct Block;
  Block* block_;  // owned by libuv until its close callback; see Stream
};

}  // namespace postern::net
