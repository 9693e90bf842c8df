// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cli/run/event_loop.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// The end of what a child has written into a pipe, for when it fails. The loop's thread.
class OutputTail {
 public:
  explicit OutputTail(EventLoop& loop) : loop_(loop) {}
  ~OutputTail();
  OutputTail(const OutputTail&) = delete;
  OutputTail& operator=(const OutputTail&) = delete;

  // The writing end, for the child.
  absl::StatusOr<base::UniqueFd> Open();
  // Reads what is there, and returns the last lines.
  std::string Text();

 private:
  void Read();

  EventLoop& loop_;
  base::UniqueFd pipe_;
  std::string text_;
};

}  // namespace postern::run
