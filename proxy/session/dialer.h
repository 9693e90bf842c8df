// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/config/proxy_config.h"
#include "proxy/net/connector.h"
#include "proxy/net/loop.h"
#include "proxy/net/resolver.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"

namespace postern::session {

// Reaches the next hop: an address, or a name whose addresses are tried one after the other. One
// attempt for each Dialer; destroying it cancels; the callback comes once, never from inside Dial,
// and may destroy the Dialer. Errors are the Connector's and the Resolver's; the deadline is the
// session's. Worker's thread.
class Dialer {
 public:
  struct Dialled {
    std::unique_ptr<net::Stream> stream;
    net::SocketAddress address;
  };
  using Done = std::function<void(absl::StatusOr<Dialled>)>;

  Dialer(net::Loop& loop, const net::ConnectOptions& options, Done done);
  ~Dialer();
  Dialer(const Dialer&) = delete;
  Dialer& operator=(const Dialer&) = delete;

  // With options.near: what is connected already is returned, and the callback does not come.
  std::optional<Dialled> Dial(const net::SocketAddress& address);
  void DialName(const std::string& host, uint16_t port);

 private:
  void OnResolved(absl::StatusOr<std::vector<net::SocketAddress>> addresses);
  void TryNext();
  void OnConnected(absl::StatusOr<std::unique_ptr<net::Stream>> stream);

  net::Loop& loop_;
  net::ConnectOptions options_;
  Done done_;
  std::vector<net::SocketAddress> addresses_;
  size_t next_ = 0;
  std::optional<net::Resolver> resolver_;
  std::optional<net::Connector> connector_;
};

// The address that a spec names, if it names one (IP or unix); nullopt for a host name.
std::optional<net::SocketAddress> FixedAddress(const config::AddressSpec& spec);

}  // namespace postern::session
