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

// Looks at every open connection once in each period, a few at a time: all at once would hold up
// the loop for as long as it takes to ask the kernel about each of thousands. Owned by the worker;
// its thread.
class Sweep {
 public:
  struct Source {
    std::function<std::vector<uint64_t>()> list;  // what is open when a round begins
    std::function<void(uint64_t)> visit;          // one of them, which may be gone by then
  };
  // At most so many at a time, unless the period has no room for as many portions.
  static constexpr size_t kPortion = 32;
  static constexpr std::chrono::milliseconds kLeastPause{10};

  Sweep(net::Loop& loop, std::chrono::milliseconds period, Source source);

  // The first round begins after one period.
  void Start();

 private:
  void OnTimer();
  void BeginRound();

  const std::chrono::milliseconds period_;
  const Source source_;
  net::Timer timer_;
  std::vector<uint64_t> left_;  // of this round
  size_t portion_ = kPortion;
  std::chrono::milliseconds pause_;
};

}  // namespace postern::session
