// SPDX-License-Identifier: Apache-2.0
#include "cli/run/socket_call.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <cstring>

namespace postern::run {

int ConnectNow(int socket, base::ByteSpan address) {
  const int flags = fcntl(socket, F_GETFL);
  const bool blocks = flags >= 0 && (flags & O_NONBLOCK) == 0;
  if (flags < 0 || (blocks && fcntl(socket, F_SETFL, flags | O_NONBLOCK) != 0)) {
    return errno;
  }
  const int done = connect(socket, reinterpret_cast<const sockaddr*>(address.data()),
                           static_cast<socklen_t>(address.size()));
  const int error = done == 0 ? 0 : errno;
  if (blocks) {
    fcntl(socket, F_SETFL, flags);
  }
  return error;
}

bool IsUnconnected(int socket) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  return getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 ||
         info.tcpi_state == TCP_CLOSE;
}

void Disconnect(int socket) {
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  connect(socket, &nothing, sizeof(nothing));
  IntOption(socket, SOL_SOCKET, SO_ERROR);  // reading it forgets it
}

Address MakeAddress(int domain, const base::IpAddress& ip, uint16_t port) {
  Address address;
  const base::ByteSpan bytes = ip.bytes();
  if (domain == AF_INET) {
    auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    std::memcpy(&v4->sin_addr, bytes.data(), sizeof(v4->sin_addr));
    address.length = sizeof(sockaddr_in);
    return address;
  }
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  constexpr size_t kMappedPrefix = 12;
  if (ip.is_v4()) {
    v6->sin6_addr.s6_addr[10] = 0xff;
    v6->sin6_addr.s6_addr[11] = 0xff;
    std::memcpy(v6->sin6_addr.s6_addr + kMappedPrefix, bytes.data(), bytes.size());
  } else {
    std::memcpy(v6->sin6_addr.s6_addr, bytes.data(), bytes.size());
  }
  address.length = sizeof(sockaddr_in6);
  return address;
}

int PlaceOf(const sockaddr_storage& storage, Place* place) {
  const auto* const v4 = reinterpret_cast<const sockaddr_in*>(&storage);
  const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
  const bool is_v4 = storage.ss_family == AF_INET;
  if (!is_v4 && storage.ss_family != AF_INET6) {
    return EAFNOSUPPORT;
  }
  const auto ip = base::IpAddress::FromBytes(
      is_v4 ? base::ByteSpan(reinterpret_cast<const uint8_t*>(&v4->sin_addr), 4)
            : base::ByteSpan(v6->sin6_addr.s6_addr, 16));
  if (!ip.ok()) {
    return EAFNOSUPPORT;
  }
  place->ip = *ip;
  place->port = ntohs(is_v4 ? v4->sin_port : v6->sin6_port);
  return 0;
}

int LocalPlace(int socket, Place* place) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &length) != 0) {
    return errno;
  }
  return PlaceOf(storage, place);
}

void ResetOnClose(int socket, bool reset) {
  const linger how{reset ? 1 : 0, 0};
  setsockopt(socket, SOL_SOCKET, SO_LINGER, &how, sizeof(how));
}

int IntOption(int socket, int level, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  return getsockopt(socket, level, name, &value, &length) == 0 ? value : 0;
}

int SetIntOption(int socket, int level, int name, int value) {
  return setsockopt(socket, level, name, &value, sizeof(value)) == 0 ? 0 : errno;
}

}  // namespace postern::run
