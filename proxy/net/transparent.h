// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "common/base/ip.h"

namespace postern::net {

// Sets IP_TRANSPARENT (IPv6: IPV6_TRANSPARENT): the socket may have addresses that are not this
// host's. PermissionDenied without CAP_NET_ADMIN or CAP_NET_RAW.
absl::Status SetTransparent(int fd, bool v4);

// Binds a socket that will connect to the address of somebody else, at a port that this somebody is
// unlikely to use himself: to this host it would be the same connection. Errors as ErrnoStatus.
absl::Status BindAsClient(int fd, const base::IpAddress& client);

// Whether a socket can be bound to it without more: not to unspecified and loopback addresses, nor
// to link-local ones of IPv6, which mean nothing without an interface.
bool CanStandForClient(const base::IpAddress& client);

}  // namespace postern::net
