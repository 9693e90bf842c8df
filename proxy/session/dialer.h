// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "proxy/config/proxy_config.h"
#include "proxy/net/connector.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"

namespace postern::session {

// Reaches the next hop at one address. One attempt for each Dialer; destroying it cancels; the
// callback comes once, never from inside Dial, and may destroy the Dialer. Errors are the
// Connector's; the deadline is the session's. Worker's thread.
class Dialer {
 public:
  using Done = net::Connector::Done;

  Dialer(net::Loop& loop, const net::ConnectOptions& options, Done done);
  ~Dialer();
  Dialer(const Dialer&) = delete;
  Dialer& operator=(const Dialer&) = delete;

  // With options.near: what is connected already is returned, and the callback does not come; else
  // null.
  std::unique_ptr<net::Stream> Dial(const net::SocketAddress& address);

 private:
  net::Loop& loop_;
  net::ConnectOptions options_;
  Done done_;
  std::optional<net::Connector> connector_;
};

// The address that a spec names, if it names one (IP or unix); nullopt for a host name.
std::optional<net::SocketAddress> FixedAddress(const config::AddressSpec& spec);

}  // namespace postern::session
