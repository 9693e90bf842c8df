// SPDX-License-Identifier: Apache-2.0
#include "common/base/process.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "common/base/sanitized.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

absl::Status SystemError(std::string_view what) {
  return absl::InternalError(
      StrCat(what, ": ", std::error_code(errno, std::generic_category()).message()));
}

absl::Status ForbidDumps() {
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) {
    return SystemError("cannot set RLIMIT_CORE to 0");
  }
  // LeakSanitizer inspects the process by ptrace at its end, which a process that is not dumpable
  // refuses.
  if (!kSanitized && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return SystemError("cannot set PR_SET_DUMPABLE to 0");
  }
  return absl::OkStatus();
}

// Best effort: with less, the proxy refuses connections at a lower count, and says so.
void RaiseFileLimit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
}

}  // namespace

absl::Status HardenProcess() {
  if (absl::Status status = ForbidDumps(); !status.ok()) {
    return status;
  }
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  umask(S_IRWXG | S_IRWXO);
  RaiseFileLimit();
  return absl::OkStatus();
}

void NotifyServiceManager(std::string_view state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) {
    return;
  }
  const size_t length = std::strlen(path);
  if (length >= sizeof(address.sun_path)) {
    return;
  }
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') {
    address.sun_path[0] = '\0';  // the abstract name space
  }
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return;
  }
  // The service manager is not there to be waited for: it sees a lost message as a missing one.
  sendto(fd, state.data(), state.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
         reinterpret_cast<const sockaddr*>(&address),
         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
  close(fd);
}

}  // namespace postern::base
