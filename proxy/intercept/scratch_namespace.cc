// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/scratch_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "common/base/log.h"
#include "proxy/net/errno_status.h"

namespace postern::intercept {

absl::StatusOr<std::unique_ptr<ScratchNamespace>> ScratchNamespace::Enter() {
  const int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (home < 0) {
    return net::ErrnoStatus(errno, "/proc/thread-self/ns/net");
  }
  if (unshare(CLONE_NEWNET) != 0) {
    const absl::Status why = net::ErrnoStatus(errno, "making a network namespace");
    close(home);
    return why;
  }
  return std::unique_ptr<ScratchNamespace>(new ScratchNamespace(home));
}

ScratchNamespace::~ScratchNamespace() {
  // Whoever cannot go home must not go on: it would set its rules where nobody is.
  if (setns(home_, CLONE_NEWNET) != 0) {
    spdlog::critical("cannot return to the own network namespace: {}", net::ErrnoText(errno));
    std::abort();
  }
  close(home_);
}

}  // namespace postern::intercept
