// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// What a child gets of this process as it was when it began. A value.
struct Inherited {
  sigset_t signals{};      // the mask
  rlim_t descriptors = 0;  // the soft limit; 0: as it is
};

struct ProxyStart {
  std::string program;
  std::vector<std::string> words;  // without the program, and without the channel's flag
  int channel = -1;                // inherited under its own number
  int output = -1;                 // standard output and error
};

// Starts the proxy: in a process group of its own, so that what a terminal sends to the command's
// does not reach it before the command has ended; it is told to end when this process does.
absl::StatusOr<pid_t> StartProxy(const ProxyStart& start, const Inherited& inherited);

struct StartedCommand {
  pid_t process = 0;
  base::UniqueFd notifications;
};

// Starts the command under the filter, in this process group. NotFound and PermissionDenied: it
// cannot be executed. FailedPrecondition: the system does not let the filter be installed. The
// command gets SIGTERM when this process ends without it.
absl::StatusOr<StartedCommand> StartCommand(const std::vector<std::string>& words,
                                            const Inherited& inherited);

}  // namespace postern::run
