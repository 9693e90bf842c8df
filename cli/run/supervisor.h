// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace postern::run {

struct Options {
  std::string proxy;                     // the program
  std::vector<std::string> proxy_words;  // its flags
  std::vector<std::string> command;
  std::string proxy_log;  // a file, "-" for standard error; empty: kept, and shown if it fails
  std::chrono::milliseconds ready_timeout{30'000};
  // The proxy's, whose flag is among its words: how long it may go on after the command.
  std::chrono::milliseconds drain_timeout{5'000};
};

// Runs the command beside a proxy of its own until the command ends, and returns its exit status:
// 128 and the signal where one has ended it. 126 and 127: it cannot be executed. Blocks; uses the
// signals and children of the whole process, so it is called once. What goes wrong on the way is
// said on `err`. Unimplemented: this system cannot do it. Unavailable, DeadlineExceeded: the proxy
// did not start, or was not ready in time; the command has not begun.
absl::StatusOr<int> Supervise(const Options& options, std::ostream& err);

}  // namespace postern::run
