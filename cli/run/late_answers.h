// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

#include "cli/run/notifier.h"
#include "common/base/bytes.h"

namespace postern::run {

// Answers to calls, and those that nobody got: a signal may break a call off while it is being done
// here, and where its handler lets the kernel restart it, the same thread asks for the same thing
// once more. It gets the answer then, instead of a second try that would say "already". The loop's
// thread.
//
// The kernel does not always say that an answer was not got: it takes one and throws it away when a
// signal wakes the thread at the same moment. So what cannot be done twice is also remembered for a
// moment after it was answered, and the thread that asks for the same address on the same socket in
// that moment, with no other call between, gets the same answer. Where a connect was begun, its
// outcome may be known by then, and programs ask in this way for it: so the socket is asked. A
// program that truly asks twice is told "already" a little later.
class LateAnswers {
 public:
  explicit LateAnswers(const Notifier& notifier) : notifier_(notifier) {}

  // Answers a call that was done on the open socket `inode` with `address`, and keeps what is not
  // taken.
  void Answer(const Call& call, ino_t inode, base::ByteSpan address, int error);
  enum class Again : uint8_t {
    kNo,        // a call of its own; whatever was kept for the socket is forgotten
    kAnswered,  // it has come again, and now has its answer
    kBegun,     // it may have come again, and is not answered: its connect was begun
  };
  Again AnswerAgain(const Call& call, ino_t inode, base::ByteSpan address);

 private:
  struct Kept {
    pid_t thread = 0;
    int number = 0;
    std::vector<uint8_t> address;
    int error = 0;
    std::chrono::steady_clock::time_point until;
    bool in_doubt = false;  // the kernel says that it was taken
  };

  void Keep(ino_t inode, Kept kept);

  const Notifier& notifier_;
  std::map<ino_t, Kept> kept_;
};

}  // namespace postern::run
