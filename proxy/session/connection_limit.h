// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "proxy/config/proxy_config.h"

namespace postern::session {

// Without --max-connections, never more than this: the memory that holds keys, which is sized by
// it, is then as large as systems let a process lock (8 MiB).
inline constexpr size_t kMostConnectionsUnasked = 100'000;

// What so many file descriptors leave room for: two for each connection. At least 1. Pure.
size_t ConnectionsFor(uint64_t descriptors);

// How many connections the whole proxy may have at once: --max-connections, else what the limit of
// file descriptors as it is now leaves room for. Any thread.
size_t ConnectionLimit(const config::ProxyConfig& config);

}  // namespace postern::session
