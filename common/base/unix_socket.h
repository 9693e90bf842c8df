// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace postern::base {

// A listening unix stream socket and its file. A value owned by whoever accepts; not copied.
class UnixServerSocket {
 public:
  // Binds with file mode `mode`, non-blocking, close-on-exec. A socket file that nobody listens on
  // is replaced. FailedPrecondition: the path is another kind of file, or in use by another
  // process. InvalidArgument: the path is too long for a unix socket. Unavailable: the system's
  // error.
  static absl::StatusOr<std::unique_ptr<UnixServerSocket>> Listen(const std::string& path,
                                                                  mode_t mode, int backlog);
  ~UnixServerSocket();  // closes, and removes the file if it is still the one that was made
  UnixServerSocket(const UnixServerSocket&) = delete;
  UnixServerSocket& operator=(const UnixServerSocket&) = delete;

  int fd() const { return fd_; }

  // Waits until a connection comes or `stop_fd` (an eventfd) is readable; returns the accepted
  // descriptor (close-on-exec, the caller's), or -1 to stop. Backs off when descriptors run out.
  int AcceptUnless(int stop_fd) const;

 private:
  UnixServerSocket(std::string path, int fd, dev_t device, ino_t inode);
  const std::string path_;
  const int fd_;
  const dev_t device_;
  const ino_t inode_;
};

}  // namespace postern::base
