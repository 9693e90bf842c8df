// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace postern::bench {

// Ends the program: what failed was not measured. Any thread.
[[noreturn]] inline void Die(std::string_view what) {
  std::fprintf(stderr, "postern-bench-micro: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// The value of a step that has to succeed before anything can be measured.
template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    Die(value.status().ToString());
  }
  return *std::move(value);
}

}  // namespace postern::bench
