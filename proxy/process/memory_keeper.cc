// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/memory_keeper.h"

#include <algorithm>

namespace postern::process {

MemoryKeeper::Action MemoryKeeper::OnTick(bool ready, uint64_t open) {
  if (start_ == Start::kGoingOn) {
    if (!ready) {
      return Action::kNothing;
    }
    start_ = Start::kOver;
    most_ = open;
    return Action::kGiveBackStart;
  }
  most_ = std::max(most_, open);
  if (most_ < kMany || open > most_ / 2) {
    return Action::kNothing;
  }
  most_ = open;
  return Action::kGiveBackFree;
}

}  // namespace postern::process
