// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <optional>

#include "cli/run/notifier.h"

namespace postern::run {

// Answers to calls, and those that nobody got: a signal may break a call off while it is being done
// here, and where its handler lets the kernel restart it, the same thread asks for the same thing
// once more. It gets the answer then, instead of a second try that would say "already". The loop's
// thread.
class LateAnswers {
 public:
  explicit LateAnswers(const Notifier& notifier) : notifier_(notifier) {}

  // Answers a call that was done on the open socket `inode`, and keeps what is not taken.
  void Answer(const Call& call, ino_t inode, int error);
  // Whether the call is one that comes again and now has its answer. Whatever was kept for the
  // socket is forgotten.
  bool AnswerAgain(const Call& call, ino_t inode);

 private:
  struct Kept {
    pid_t thread = 0;
    int number = 0;
    int error = 0;
    std::chrono::steady_clock::time_point since;
  };

  const Notifier& notifier_;
  std::map<ino_t, Kept> kept_;
};

}  // namespace postern::run
