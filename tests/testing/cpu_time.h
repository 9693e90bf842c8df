// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>

#include "absl/time/time.h"

namespace postern::testing {

// What this thread has computed so far. For tests of how cost grows: a busy machine does not change it.
inline absl::Duration CpuTime() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return absl::DurationFromTimespec(now);
}

}  // namespace postern::testing
