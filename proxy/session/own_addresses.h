// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "proxy/config/proxy_config.h"
#include "proxy/net/socket_address.h"

namespace postern::session {

// Where this proxy itself listens: what no session may dial, as the connection would come back for
// ever (the loop guard). Made once for each worker; any thread.
class OwnAddresses {
 public:
  void Add(const net::SocketAddress& listener);
  // The admin and metrics ports of the config; a host name stands for every local address.
  void AddAdminPorts(const config::ProxyConfig& config);

  // Whether a connection to `destination` would end at one of the proxy's own listeners.
  bool Contains(const net::SocketAddress& destination) const;

 private:
  std::vector<net::SocketAddress> listeners_;
};

// Whether this host answers for `ip`: loopback, or an address of one of its interfaces. Asks the
// kernel each time, as interfaces come and go.
bool IsLocalAddress(const base::IpAddress& ip);

}  // namespace postern::session
