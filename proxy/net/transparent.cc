// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/transparent.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <random>

#include "proxy/net/errno_status.h"
#include "proxy/net/socket_address.h"

namespace postern::net {
namespace {

// A client that connects from one of our ports to the same destination would be the same connection
// to this host. Linux takes 32768 to 60999 for clients unless it is told otherwise; and for
// connect() those ports first that are even as the beginning of the range is. So: below, and odd.
constexpr unsigned kFirstPort = 10001;
constexpr unsigned kLastPort = 32767;
constexpr int kTries = 8;

uint16_t RandomPort() {
  thread_local std::minstd_rand engine{std::random_device{}()};
  std::uniform_int_distribution<unsigned> pick(0, (kLastPort - kFirstPort) / 2);
  return static_cast<uint16_t>(kFirstPort + 2 * pick(engine));
}

int Bind(int fd, const SocketAddress& address) {
  sockaddr_storage storage{};
  const socklen_t length = address.ToSockaddr(&storage);
  return bind(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0 ? 0 : errno;
}

}  // namespace

absl::Status SetTransparent(int fd, bool v4) {
  const int on = 1;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  if (setsockopt(fd, level, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, &on, sizeof(on)) != 0) {
    return ErrnoStatus(errno, "IP_TRANSPARENT (needs CAP_NET_ADMIN)");
  }
  return absl::OkStatus();
}

absl::Status BindAsClient(int fd, const base::IpAddress& client) {
  if (absl::Status set = SetTransparent(fd, client.is_v4()); !set.ok()) {
    return set;
  }
  for (int i = 0; i < kTries; ++i) {
    const int error = Bind(fd, SocketAddress(client, RandomPort()));
    if (error == 0) {
      return absl::OkStatus();
    }
    if (error != EADDRINUSE) {
      return ErrnoStatus(error, "bind to the client's address");
    }
  }
  // Crowded: the kernel searches its own range, for bind() odd ports first.
  const int error = Bind(fd, SocketAddress(client, 0));
  return error == 0 ? absl::OkStatus() : ErrnoStatus(error, "bind to the client's address");
}

bool CanStandForClient(const base::IpAddress& client) {
  const base::ByteSpan bytes = client.bytes();
  const bool link_local = !client.is_v4() && bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
  return !client.IsUnspecified() && !client.IsLoopback() && !link_local;
}

}  // namespace postern::net
