// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/intercept/rules.h"
#include "proxy/intercept/socket_table.h"

namespace postern::intercept {

// How many TCP connections of this network namespace are open to or from other hosts and would be
// intercepted if they were opened now: rules do not touch what was open before. Reads
// /proc/net/tcp and tcp6; a file that cannot be read counts as empty.
size_t CountExistingConnections(const InterceptConfig& config);

// The part without I/O: `table` is the content of /proc/net/tcp or tcp6.
size_t CountInTable(std::string_view table, const InterceptConfig& config);

// The connections among `sockets` that were opened past these rules and would be taken by them if
// they were opened now: with another host, by or to the application, nothing that is excluded.
// Pure. What only the kernel's packets tell cannot be seen here: see CheckKillExisting.
std::vector<TcpSocket> OpenedPastTheRules(const std::vector<TcpSocket>& sockets,
                                          const InterceptConfig& config);

// InvalidArgument where the rules go by group or control group, which a connection does not tell.
absl::Status CheckKillExisting(const InterceptConfig& config);

// Ends those connections; returns how many. Unimplemented, PermissionDenied: see DestroySocket.
absl::StatusOr<size_t> KillExistingConnections(const InterceptConfig& config);

}  // namespace postern::intercept
