// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/socket_options.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

#include "proxy/net/errno_status.h"

namespace postern::net {
namespace {

constexpr int kKeepaliveIdleSeconds = 60;
constexpr int kKeepaliveIntervalSeconds = 10;
constexpr int kKeepaliveProbes = 6;

void SetInt(int fd, int level, int option, int value) {
  // A peer that has reset already makes some of these fail (EINVAL); the next read says so.
  setsockopt(fd, level, option, &value, sizeof(value));
}

}  // namespace

absl::StatusOr<int> NewStreamSocket(const SocketAddress& address) {
  const int family = address.is_unix() ? AF_UNIX : (address.ip().is_v4() ? AF_INET : AF_INET6);
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return ErrnoStatus(errno, "socket");
  }
  return fd;
}

absl::Status PrepareStreamSocket(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "socket flags");
  }
  if (IsTcp(fd)) {
    SetTcpOptions(fd);
  }
  return absl::OkStatus();
}

void SetTcpOptions(int fd) {
  SetInt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds);
  SetInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds);
  SetInt(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
  SetInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

bool IsTcp(int fd) {
  int protocol = 0;
  socklen_t length = sizeof(protocol);
  return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
         protocol == IPPROTO_TCP;
}

absl::StatusOr<SocketAddress> LocalAddressOf(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) {
    return ErrnoStatus(errno, "local address");
  }
  return SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&storage), length);
}

IoResult IoFailure(int error) {
  if (error == EAGAIN || error == EWOULDBLOCK) {
    return {IoOutcome::kWouldBlock, 0, 0};
  }
  if (error == ECONNRESET || error == EPIPE || error == ENOTCONN) {
    return {IoOutcome::kReset, 0, error};
  }
  return {IoOutcome::kError, 0, error};
}

}  // namespace postern::net
