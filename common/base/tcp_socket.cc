// SPDX-License-Identifier: Apache-2.0
#include "common/base/tcp_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "common/base/strings.h"

namespace postern::base {
namespace {

union Address {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

}  // namespace

absl::StatusOr<UniqueFd> ListenTcp(const std::string& host, uint16_t port, int backlog) {
  Address address{};
  socklen_t size = sizeof(address.v4);
  if (inet_pton(AF_INET, host.c_str(), &address.v4.sin_addr) == 1) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(port);
  } else if (inet_pton(AF_INET6, host.c_str(), &address.v6.sin6_addr) == 1) {
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_port = htons(port);
    size = sizeof(address.v6);
  } else {
    return absl::UnavailableError(StrCat(host, " is no address"));
  }
  UniqueFd fd(socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  const int off = 0;
  if (!fd.is_open() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      (address.any.sa_family == AF_INET6 &&
       setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0) ||
      bind(fd.get(), &address.any, size) != 0 || listen(fd.get(), backlog) != 0) {
    return absl::UnavailableError(
        StrCat("cannot listen on ", host, " port ", port, ": ", std::strerror(errno)));
  }
  return fd;
}

absl::StatusOr<uint16_t> BoundPort(int fd) {
  Address bound{};
  socklen_t size = sizeof(bound);
  if (getsockname(fd, &bound.any, &size) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  return ntohs(bound.any.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
}

}  // namespace postern::base
