// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/unique_fd.h"

namespace postern::run {

// One system call in which a thread of the command waits.
struct Call {
  uint64_t id = 0;
  pid_t thread = 0;
  int number = 0;
  std::array<uint64_t, 6> arguments{};

  int int_argument(size_t index) const { return static_cast<int>(arguments[index]); }
};

// The notifications of the filter. The supervisor's thread.
class Notifier {
 public:
  explicit Notifier(base::UniqueFd fd);

  int fd() const { return fd_.get(); }
  // The next one; nullopt: there is none (the thread was killed or interrupted meanwhile).
  std::optional<Call> Receive();
  // Whether the thread still waits in this call: what was found out about it by its number is then
  // about it and no other.
  bool IsWaiting(uint64_t id) const;
  // Ends the call with 0 or with an errno. False: nobody waits for it any more. True is no proof that
  // the thread got it: a signal that comes at the same moment still has the kernel throw it away.
  bool Answer(uint64_t id, int error) const;
  // Lets the kernel do the call as the thread has asked, which reads everything anew. Never for a
  // connect, and for a bind only because listen is looked at again.
  void Pass(uint64_t id) const;

 private:
  base::UniqueFd fd_;
  std::vector<std::byte> buffer_;  // as large as the kernel's own idea of a notification
};

}  // namespace postern::run
