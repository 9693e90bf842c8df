// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/ip.h"

namespace postern::net {

// Where a socket is bound or connected: IP and port, or the path of a unix socket. A value.
class SocketAddress {
 public:
  SocketAddress() = default;  // 0.0.0.0:0
  SocketAddress(const base::IpAddress& ip, uint16_t port) : ip_(ip), port_(port) {}

  // "192.0.2.1:80", "[2001:db8::1]:80", "unix:/path". No names: those are resolved elsewhere.
  // InvalidArgument otherwise (also a unix path that does not fit sockaddr_un).
  static absl::StatusOr<SocketAddress> Parse(std::string_view text);
  static absl::StatusOr<SocketAddress> FromSockaddr(const sockaddr* address, socklen_t length);
  static SocketAddress Unix(std::string path);

  bool is_unix() const { return !path_.empty(); }
  const base::IpAddress& ip() const { return ip_; }
  uint16_t port() const { return port_; }
  const std::string& path() const { return path_; }
  std::string ToString() const;

  // Fills `storage`; returns the length to pass to bind or connect.
  socklen_t ToSockaddr(sockaddr_storage* storage) const;

  auto operator<=>(const SocketAddress&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const SocketAddress& a) {
    return H::combine(std::move(h), a.ip_, a.port_, a.path_);
  }

 private:
  base::IpAddress ip_;
  uint16_t port_ = 0;
  std::string path_;
};

}  // namespace postern::net
