// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace postern::base {

// A directory that this process has for itself, as long as this object lives. The lock is the
// kernel's (flock on the directory): it needs no file, works in a directory that is read-only, and
// is gone with the process however that ended. Any thread.
class DirectoryLock {
 public:
  // FailedPrecondition when somebody holds it already, in this process or in another: nobody waits.
  static absl::StatusOr<DirectoryLock> Take(const std::string& path);

  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace postern::base
