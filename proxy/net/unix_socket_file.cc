// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/unix_socket_file.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/strings.h"
#include "proxy/net/errno_status.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/socket_options.h"

namespace postern::net {
namespace {

absl::Status RemoveStale(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, path);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::UnavailableError(base::StrCat(path, ": exists and is no socket"));
  }
  const SocketAddress address = SocketAddress::Unix(path);
  const absl::StatusOr<int> probe = NewStreamSocket(address);
  if (!probe.ok()) {
    return probe.status();
  }
  sockaddr_storage storage{};
  const socklen_t length = address.ToSockaddr(&storage);
  const int error = connect(*probe, reinterpret_cast<sockaddr*>(&storage), length) == 0 ? 0 : errno;
  close(*probe);
  if (error != ECONNREFUSED) {
    return absl::UnavailableError(base::StrCat(path, ": another process listens on it"));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status UnixSocketFile::Bind(int fd, const std::string& path, mode_t mode) {
  const absl::Status cleared = RemoveStale(path);
  if (!cleared.ok()) {
    return cleared;
  }
  // The file is born with the mode of the socket's inode less the umask, so never too open; chmod
  // then adds what the umask took.
  if (fchmod(fd, mode) != 0) {
    return ErrnoStatus(errno, path);
  }
  sockaddr_storage storage{};
  const socklen_t length = SocketAddress::Unix(path).ToSockaddr(&storage);
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) {
    return ErrnoStatus(errno, path);
  }
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) {
    return absl::UnavailableError(base::StrCat(path, ": replaced while it was being bound"));
  }
  path_ = path;
  device_ = info.st_dev;
  inode_ = info.st_ino;
  if (chmod(path.c_str(), mode) != 0) {
    return ErrnoStatus(errno, path);
  }
  return absl::OkStatus();
}

void UnixSocketFile::Remove() {
  struct stat info {};
  if (!path_.empty() && lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ &&
      info.st_ino == inode_) {
    unlink(path_.c_str());
  }
  path_.clear();
}

}  // namespace postern::net
