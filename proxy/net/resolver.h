// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/net/socket_address.h"

namespace postern::net {

// The addresses of a host name, in the order in which the system prefers them. NotFound or
// Unavailable name the host. Blocks, in the C library: for the start of a program; a loop has a
// NameCache.
absl::StatusOr<std::vector<SocketAddress>> ResolveNow(const std::string& host, uint16_t port);

}  // namespace postern::net
