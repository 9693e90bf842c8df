// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"

namespace postern::intercept {

// Where a redirected connection was going: SO_ORIGINAL_DST by the family of the accepted socket
// (v4-mapped peers count as IPv4), or with `transparent` the local address when there is none
// (tproxy keeps it). NotFound: the connection was not redirected. Any thread.
absl::StatusOr<net::SocketAddress> OriginalDestination(const net::Stream& accepted,
                                                       bool transparent);

}  // namespace postern::intercept
