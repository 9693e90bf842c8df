// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace postern::attest {

// The process at the other end of a connected unix socket. Make it right after accept and keep it
// for as long as the connection lives: uid and gid are what the kernel recorded at connect; facts
// that are read through the PID are guarded against its reuse by a pidfd (SO_PEERPIDFD, kernel 6.5
// and later) or, on older kernels, by the process's start time, taken now and compared later.
// Immutable; any thread.
class UnixPeer {
 public:
  // Unauthenticated: not a unix socket, the PID is not visible in our PID namespace (0), or the
  // process is gone already. `fd` stays the caller's.
  static absl::StatusOr<UnixPeer> FromSocket(int fd);

  pid_t pid() const { return pid_; }
  uid_t uid() const { return uid_; }
  gid_t gid() const { return gid_; }

  // Whether this very process still runs; false once its PID may be somebody else's.
  bool IsAlive() const;

  // The absolute path of the executable that this process runs. nullopt when the kernel does not
  // let us read it, the file was replaced or deleted, or the process sees another mount namespace
  // than we do (there "/usr/bin/x" may be any file). Unauthenticated: the process is gone.
  absl::StatusOr<std::optional<std::string>> ExecutablePath() const;

 private:
  UnixPeer() = default;
  pid_t pid_ = 0;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  uint64_t start_time_ = 0;  // clock ticks after boot, /proc/PID/stat field 22
  base::UniqueFd pidfd_;     // not valid on kernels before 6.5
};

}  // namespace postern::attest
