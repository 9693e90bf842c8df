// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "cli/run/notifier.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// What a thread that waits in a call has: its memory, its descriptors, its directory. Everything
// is taken once; what is returned with error 0 was the waiting thread's own, as it was asked
// afterwards whether it still waits. EPERM: the process does not let itself be looked at (it is not
// dumpable, or another user's). ESRCH: it waits no more. The supervisor's thread.
class Caller {
 public:
  Caller(const Notifier& notifier, const Call& call) : notifier_(notifier), call_(call) {}

  // A copy of the descriptor `number`: the same open socket.
  int TakeDescriptor(int number, base::UniqueFd* taken) const;
  // The address of a connect or bind: arguments 1 and 2. EINVAL for an impossible length, EFAULT
  // for memory that is none, as the kernel would say.
  int ReadAddress(std::vector<uint8_t>* address) const;
  // Its working directory. EACCES: it has another root directory than this process.
  int TakeDirectory(base::UniqueFd* directory) const;

 private:
  int IfWaiting(int error) const;

  const Notifier& notifier_;
  const Call& call_;
};

}  // namespace postern::run
