// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::net {
absl::StatusOr<std::vector<SocketAddress>> ResolveNow(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), base::StrCat(port).c_str(), &hints, &list);
  if (error != 0) {
    const std::string message =
        base::StrCat("cannot resolve ", base::Printable(host), ": ", gai_strerror(error));
    return error == EAI_NONAME ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, &freeaddrinfo);
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    absl::StatusOr<SocketAddress> address =
        SocketAddress::FromSockaddr(entry->ai_addr, entry->ai_addrlen);
    if (address.ok()) {
      addresses.push_back(*std::move(address));
    }
  }
  if (addresses.empty()) {
    return absl::NotFoundError(
        base::StrCat("cannot resolve ", base::Printable(host), ": no usable address"));
  }
  return addresses;
}

}  // namespace postern::net
