// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/original_destination.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "absl/status/status.h"
#include "common/base/strings.h"

namespace postern::intercept {
namespace {

// SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and IP6T_SO_ORIGINAL_DST
// (linux/netfilter_ipv6/ip6_tables.h); those headers do not compile beside netinet/in.h.
constexpr int kOriginalDestinationOption = 80;

// Conntrack keeps the destination from before the translation, under the family that was on the
// wire.
absl::StatusOr<net::SocketAddress> AskConntrack(int fd, bool v4) {
  sockaddr_storage storage{};
  socklen_t length = v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  const int level = v4 ? SOL_IP : SOL_IPV6;
  if (getsockopt(fd, level, kOriginalDestinationOption, &storage, &length) == 0) {
    return net::SocketAddress::FromSockaddr(reinterpret_cast<const sockaddr*>(&storage), length);
  }
  const int error = errno;
  // No such entry; or no conntrack at all, where no rule was ever loaded.
  if (error == ENOENT || error == ENOPROTOOPT || error == EOPNOTSUPP) {
    return absl::NotFoundError("the connection was not redirected: conntrack does not know it");
  }
  return absl::ErrnoToStatus(error, "reading the original destination (SO_ORIGINAL_DST)");
}

}  // namespace

absl::StatusOr<net::SocketAddress> OriginalDestination(const net::Stream& accepted,
                                                       bool transparent) {
  absl::StatusOr<net::SocketAddress> local = accepted.LocalAddress();
  if (!local.ok()) {
    return local;
  }
  if (local->is_unix()) {
    return absl::NotFoundError("a connection to a unix socket has no original destination");
  }
  // SocketAddress has turned a v4-mapped address into the IPv4 one.
  absl::StatusOr<net::SocketAddress> original = AskConntrack(accepted.fd(), local->ip().is_v4());
  // Tproxy does not translate; but what callers on this host open is redirected with it too.
  if (transparent &&
      (absl::IsNotFound(original.status()) || (original.ok() && *original == *local))) {
    return local;
  }
  if (original.ok() && *original == *local) {
    return absl::NotFoundError(
        base::StrCat("the connection was not redirected: ", local->ToString(), " was dialled"));
  }
  return original;
}

}  // namespace postern::intercept
