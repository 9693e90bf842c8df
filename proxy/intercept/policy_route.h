// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace postern::intercept {

// What tproxy needs beside nftables: packets with the mark are for this host, whatever their
// destination. In each family a rule (`ip rule`: fwmark MARK/MARK lookup TABLE) and one route
// (`ip route`: local default dev lo table TABLE). A value.
struct PolicyRoute {
  uint32_t mark = 0;
  uint32_t table = 0;  // also the rule's priority
};

// Adds what is missing; again is as good as once. PermissionDenied without CAP_NET_ADMIN. A host
// without IPv6 has the IPv4 half. Blocks shortly; not on a worker loop.
absl::Status AddPolicyRoute(const PolicyRoute& route);

// Removes rules and routes of that table that were added here; OK when there were none.
absl::Status RemovePolicyRoute(uint32_t table);

// What of it is not there, in the words of `ip`; empty: nothing is missing.
absl::StatusOr<std::vector<std::string>> MissingOfPolicyRoute(const PolicyRoute& route);

}  // namespace postern::intercept
