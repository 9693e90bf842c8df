// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/inet_diag.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "proxy/net/socket_address.h"

namespace postern::intercept {

// One TCP socket of this network namespace, as the kernel tells it. A value.
struct TcpSocket {
  bool listening = false;
  base::IpAddress local_ip, peer_ip;
  uint16_t local_port = 0, peer_port = 0;
  uid_t uid = 0;          // of who made it
  uint32_t mark = 0;      // SO_MARK; told with CAP_NET_ADMIN alone
  std::string interface;  // that has the local address; empty: none

  // How the kernel calls it, for DestroySocket.
  uint8_t family = 0;
  inet_diag_sockid id{};
};

// Those that listen and those of open connections (not of ones that only wait to be forgotten), by
// NETLINK_SOCK_DIAG. Needs no privilege.
absl::StatusOr<std::vector<TcpSocket>> ReadTcpSockets();

// Whether there is a TCP connection of this network namespace whose end at `local` has `peer` on
// the other side, also one that waits to be accepted. Needs no privilege. Errors: it cannot be
// told.
absl::StatusOr<bool> HasTcpConnection(const net::SocketAddress& local,
                                      const net::SocketAddress& peer);

// Ends a connection as `ss -K` does: its owner reads ECONNABORTED, its peer gets a reset. OK also
// when it is gone already. Unimplemented: this kernel was built without it; PermissionDenied:
// without CAP_NET_ADMIN.
absl::Status DestroySocket(const TcpSocket& socket);

}  // namespace postern::intercept
