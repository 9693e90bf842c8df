// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/connection_limit.h"

#include <sys/resource.h>

#include <algorithm>

namespace postern::session {
namespace {

// Descriptors for what is not a connection: listeners, admin, issuer, files.
constexpr uint64_t kReservedDescriptors = 64;

}  // namespace

size_t ConnectionsFor(uint64_t descriptors) {
  if (descriptors < kReservedDescriptors + 2) {
    return 1;
  }
  return std::min<uint64_t>((descriptors - kReservedDescriptors) / 2, kMostConnectionsUnasked);
}

size_t ConnectionLimit(const config::ProxyConfig& config) {
  if (config.max_connections != 0) {
    return config.max_connections;
  }
  rlimit limit{};
  return ConnectionsFor(getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0);
}

}  // namespace postern::session
