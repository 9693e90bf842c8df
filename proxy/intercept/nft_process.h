// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace postern::intercept {

// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  void Close() {
    if (fd_ >= 0) {
      close(fd_);
    }
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

// A running nft and our ends of its three pipes. Whoever starts it waits for it.
struct NftProcess {
  pid_t pid = -1;
  Descriptor input, output, error;

  // Starts the `nft` program (from /usr/sbin, /sbin or /usr/bin; no shell, an empty environment) in
  // the network namespace of the calling thread. NotFound: there is none, with the package to
  // install.
  static absl::StatusOr<NftProcess> Start(const std::vector<std::string>& arguments);
  // Waits for its end; what waitpid says.
  int Wait() const;
};

}  // namespace postern::intercept
