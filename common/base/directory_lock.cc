// SPDX-License-Identifier: Apache-2.0
#include "common/base/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

std::string Reason(int error) {
  return std::error_code(error, std::generic_category()).message();
}

}  // namespace

absl::StatusOr<DirectoryLock> DirectoryLock::Take(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (fd < 0) {
    return absl::InternalError(
        StrCat("cannot open directory '", Printable(path, 512), "': ", Reason(errno)));
  }
  DirectoryLock lock(fd);
  int result = 0;
  do {
    result = flock(fd, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result == 0) {
    return lock;
  }
  if (errno == EWOULDBLOCK) {
    return absl::FailedPreconditionError(
        StrCat("directory '", Printable(path, 512), "' is in use by another process (`fuser ",
               Printable(path, 512),
               "` names it): end that one first, or give each a directory of its own"));
  }
  return absl::InternalError(
      StrCat("cannot lock directory '", Printable(path, 512), "': ", Reason(errno)));
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

}  // namespace postern::base
