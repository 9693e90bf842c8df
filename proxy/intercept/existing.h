// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "proxy/intercept/rules.h"

namespace postern::intercept {

// How many TCP connections of this network namespace are open to or from other hosts and would be
// intercepted if they were opened now: rules do not touch what was open before. Reads
// /proc/net/tcp and tcp6; a file that cannot be read counts as empty.
size_t CountExistingConnections(const InterceptConfig& config);

// The part without I/O: `table` is the content of /proc/net/tcp or tcp6.
size_t CountInTable(std::string_view table, const InterceptConfig& config);

}  // namespace postern::intercept
