// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/time.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace postern::cli {

// A daemon that listens on a unix socket, and what to do where it cannot be reached there.
struct UnixServer {
  std::string_view flag;     // that names the socket
  std::string_view missing;  // no such socket
  std::string_view denied;   // this user may not open it
  std::string_view gone;     // nobody listens there any more
  timeval timeout = {0, 0};  // for one connect, read or write; zero: none
};

// A connected socket. InvalidArgument: `path` is no path of a socket. Else as ExplainUnix.
absl::StatusOr<base::UniqueFd> ConnectUnix(const UnixServer& server, const std::string& path);

// What an errno means there: NotFound, PermissionDenied or Unavailable; the message names the flag
// and the mend.
absl::Status ExplainUnix(const UnixServer& server, int error, const std::string& path);

}  // namespace postern::cli
