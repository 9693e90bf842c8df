// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace postern::base {

// A listening TCP socket, non-blocking and close-on-exec. `host` is an IP without brackets; `::`
// takes both families. Port 0 picks one. Without SO_REUSEPORT, with which a second process would
// silently share the port. Unavailable names the address and the system's error.
absl::StatusOr<UniqueFd> ListenTcp(const std::string& host, uint16_t port, int backlog);

// The port that a socket is bound to. Unavailable: the system's error.
absl::StatusOr<uint16_t> BoundPort(int fd);

}  // namespace postern::base
