// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "cli/run/caller.h"
#include "cli/run/doorway.h"
#include "cli/run/event_loop.h"
#include "cli/run/judge.h"
#include "cli/run/late_answers.h"
#include "cli/run/notifier.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// The connect calls of the command. Each is done here, on the command's own socket, with the
// address that was read once; none is ever passed on to the kernel. A call that must wait holds
// nobody up: it stands in a table by its socket until it ends, its time is over, or its thread has
// gone.
//
// A non-blocking socket is answered at once, as the kernel would. A blocking one that is caught
// waits until the proxy has reached the destination, and gets the error if it has not. A call that
// a signal has broken off goes on; the call that follows it on the same socket takes it over, or
// gets its outcome. The loop's thread.
class Connects {
 public:
  Connects(EventLoop& loop, Notifier& notifier, Doorway& doorway)
      : loop_(loop), notifier_(notifier), doorway_(doorway), answers_(notifier) {}
  ~Connects();
  Connects(const Connects&) = delete;
  Connects& operator=(const Connects&) = delete;

  void Handle(const Call& call, const Caller& caller);

 private:
  struct Pending {
    Call call;  // that waits; its id 0: none does any more
    base::UniqueFd socket;
    base::UniqueFd outcome;    // caught: what the proxy has to say
    base::UniqueFd directory;  // unix: what its path is relative to
    std::vector<uint8_t> address;
    uint64_t timer = 0;  // to try again, or the end of SO_SNDTIMEO
    std::chrono::milliseconds pause{0};
  };

  bool GoesOnFor(const Call& call, const SocketFacts& facts);
  void Catch(const Call& call, const SocketFacts& facts, const Judgement& judgement,
             base::UniqueFd socket, std::vector<uint8_t> address, bool begun);
  void DoAsAsked(const Call& call, const Caller& caller, const SocketFacts& facts,
                 base::UniqueFd socket, std::vector<uint8_t> address, bool begun);
  Pending& Wait(const Call& call, ino_t inode, base::UniqueFd socket, std::vector<uint8_t> address);
  void AwaitWritable(ino_t inode);
  void TryAgainLater(ino_t inode);
  void OnOutcome(ino_t inode);
  void OnWritable(ino_t inode);
  void OnTimeIsOver(ino_t inode);
  void End(ino_t inode, int error);

  EventLoop& loop_;
  Notifier& notifier_;
  Doorway& doorway_;
  std::map<ino_t, std::unique_ptr<Pending>> pending_;  // by the open socket
  LateAnswers answers_;
};

}  // namespace postern::run
