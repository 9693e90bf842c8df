// SPDX-License-Identifier: Apache-2.0
#include "common/base/unix_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "common/base/strings.h"

namespace postern::base {
namespace {

constexpr int kBackOffMilliseconds = 100;

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

bool IsListenedOn(const sockaddr_un& address) {
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // A full backlog answers EAGAIN: somebody listens there all the same.
  const bool answered = connect(probe, Generic(address), sizeof(address)) == 0 || errno == EAGAIN;
  close(probe);
  return answered;
}

absl::Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    return absl::OkStatus();
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(StrCat(path, " exists and is no socket"));
  }
  if (IsListenedOn(address)) {
    return absl::FailedPreconditionError(StrCat(path, " is in use by another process"));
  }
  unlink(path.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<UnixServerSocket>> UnixServerSocket::Listen(const std::string& path,
                                                                           mode_t mode,
                                                                           int backlog) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        StrCat("a unix socket's path has 1 to ", sizeof(address.sun_path) - 1, " bytes: ", path));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  if (absl::Status removed = RemoveStale(path, address); !removed.ok()) {
    return removed;
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct stat made {};
  // bind gives the file the mode of the descriptor (under the umask), so that it is never wider
  // than asked for; chmod then makes it exact.
  if (fd < 0 || fchmod(fd, mode) != 0 || bind(fd, Generic(address), sizeof(address)) != 0 ||
      chmod(path.c_str(), mode) != 0 || lstat(path.c_str(), &made) != 0 ||
      listen(fd, backlog) != 0) {
    absl::Status failed = absl::UnavailableError(
        StrCat("cannot listen on unix socket ", path, ": ", strerror(errno)));
    close(fd);
    return failed;
  }
  return std::unique_ptr<UnixServerSocket>(
      new UnixServerSocket(path, fd, made.st_dev, made.st_ino));
}

UnixServerSocket::UnixServerSocket(std::string path, int fd, dev_t device, ino_t inode)
    : path_(std::move(path)), fd_(fd), device_(device), inode_(inode) {}

UnixServerSocket::~UnixServerSocket() {
  close(fd_);
  struct stat now {};
  if (lstat(path_.c_str(), &now) == 0 && now.st_ino == inode_ && now.st_dev == device_) {
    unlink(path_.c_str());
  }
}

int UnixServerSocket::AcceptUnless(int stop_fd) const {
  std::array<pollfd, 2> waits = {{{stop_fd, POLLIN, 0}, {fd_, POLLIN, 0}}};
  while (true) {
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) {
      return -1;
    }
    if (waits[0].revents != 0) {
      return -1;
    }
    const int accepted = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted >= 0) {
      return accepted;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The connection stays in the backlog, so poll would come back at once.
      poll(waits.data(), 1, kBackOffMilliseconds);
    }
  }
}

}  // namespace postern::base
