// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/own_addresses.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "proxy/session/dialer.h"

namespace postern::session {

void OwnAddresses::Add(const net::SocketAddress& listener) {
  listeners_.push_back(listener);
}

void OwnAddresses::AddAdminPorts(const config::ProxyConfig& config) {
  for (const std::string& text : {config.admin, config.metrics}) {
    const absl::StatusOr<config::AddressSpec> spec = config::AddressSpec::Parse(text);
    if (!spec.ok()) {
      continue;  // empty: switched off; the config's own check refuses anything else
    }
    const std::optional<net::SocketAddress> fixed = FixedAddress(*spec);
    Add(fixed.has_value() ? *fixed : net::SocketAddress(base::IpAddress(), spec->port));
  }
}

bool OwnAddresses::Contains(const net::SocketAddress& destination) const {
  return std::any_of(listeners_.begin(), listeners_.end(), [&](const net::SocketAddress& own) {
    if (own.is_unix() || destination.is_unix()) {
      return own.is_unix() && own == destination;
    }
    if (own.port() != destination.port()) {
      return false;
    }
    return own.ip() == destination.ip() ||
           (own.ip().IsUnspecified() && IsLocalAddress(destination.ip()));
  });
}

bool IsLocalAddress(const base::IpAddress& ip) {
  if (ip.IsLoopback() || ip.IsUnspecified()) {
    return true;
  }
  // The kernel binds a socket to the host's own addresses only.
  sockaddr_storage storage{};
  const socklen_t length = net::SocketAddress(ip, 0).ToSockaddr(&storage);
  const int fd = socket(storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0;
  close(fd);
  return bound;
}

}  // namespace postern::session
