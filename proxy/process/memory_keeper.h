// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace postern::process {

// Decides when the process gives memory back to the system: once after its start, and when most of
// many connections have ended, whose memory malloc would keep for good. Pure; main loop.
class MemoryKeeper {
 public:
  enum class Action : uint8_t { kNothing, kGiveBackStart, kGiveBackFree };

  // Called once a second. `ready`: identity and policy are there, the start is over. `open`:
  // connections that are open now.
  Action OnTick(bool ready, uint64_t open);

 private:
  // Below, what there is to give back (16 KiB each) is not worth the walk through the heap.
  static constexpr uint64_t kMany = 256;

  enum class Start : uint8_t { kGoingOn, kOver };
  Start start_ = Start::kGoingOn;
  uint64_t most_ = 0;  // connections open at a time since memory was given back
};

}  // namespace postern::process
