// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "common/base/bytes.h"
#include "common/base/ip.h"

namespace postern::run {

// System calls on a socket of the command's, done here. Each returns 0 or an errno.

// connect without waiting, whatever the socket's own mode is: EINPROGRESS, or EAGAIN of a unix
// socket, where a blocking one would wait. The mode is put back.
int ConnectNow(int socket, base::ByteSpan address);
// Whether a TCP socket is neither connected nor connecting nor listening.
bool IsUnconnected(int socket);
// Ends what was begun on it, so that it can be connected again.
void Disconnect(int socket);

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  base::ByteSpan bytes() const {
    return {reinterpret_cast<const uint8_t*>(&storage), static_cast<size_t>(length)};
  }
};
// For a socket of `domain`: an IPv4 address is mapped where that is AF_INET6.
Address MakeAddress(int domain, const base::IpAddress& ip, uint16_t port);

// An IP address and port, IPv4 where it is a mapped one.
struct Place {
  base::IpAddress ip;
  uint16_t port = 0;

  auto operator<=>(const Place&) const = default;
};
// Where a socket is bound, or what has accepted from where.
int LocalPlace(int socket, Place* place);
// EAFNOSUPPORT: no IP address.
int PlaceOf(const sockaddr_storage& storage, Place* place);

// Whether closing it resets the connection, or ends it in the ordinary way.
void ResetOnClose(int socket, bool reset);

// An int option; 0 where it cannot be asked for.
int IntOption(int socket, int level, int name);
int SetIntOption(int socket, int level, int name, int value);

}  // namespace postern::run
