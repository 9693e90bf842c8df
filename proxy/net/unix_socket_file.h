// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <string>

#include "absl/status/status.h"

namespace postern::net {

// The file of a unix listener: made with its mode, removed at the end, and neither at the cost of
// somebody else's. A value-like owner; any one thread.
class UnixSocketFile {
 public:
  UnixSocketFile() = default;
  ~UnixSocketFile() { Remove(); }
  UnixSocketFile(const UnixSocketFile&) = delete;
  UnixSocketFile& operator=(const UnixSocketFile&) = delete;

  // Binds `fd` to `path` and gives the file `mode`. A file that is there already is removed first
  // only if it is a socket on which nothing listens (connect is refused). Unavailable: in use or
  // not a socket; else as ErrnoStatus.
  absl::Status Bind(int fd, const std::string& path, mode_t mode);

  // Removes the file, if it is still the one that Bind made.
  void Remove();

 private:
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace postern::net
