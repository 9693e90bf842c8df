// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"

namespace postern::net {

// Descriptors of proxy/net's own making and what every one of them is given. Any thread.

// A non-blocking, close-on-exec stream socket of the family of `address`; the caller closes it.
// Errors as ErrnoStatus.
absl::StatusOr<int> NewStreamSocket(const SocketAddress& address);

// O_NONBLOCK, FD_CLOEXEC and, for TCP, the options of SetTcpOptions.
absl::Status PrepareStreamSocket(int fd);

// TCP_NODELAY, and keepalive after 60 s idle, each 10 s, 6 times. Set on a listening socket they
// are inherited by what it accepts (Linux). Errors of a connection that is gone already are none.
void SetTcpOptions(int fd);

bool IsTcp(int fd);

absl::StatusOr<SocketAddress> LocalAddressOf(int fd);

// The outcome of a failed recv or send.
IoResult IoFailure(int error);

}  // namespace postern::net
