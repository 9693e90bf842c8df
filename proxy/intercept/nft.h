// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proxy/intercept/policy_route.h"
#include "proxy/intercept/rules.h"

namespace postern::intercept {

// Runs the `nft` program (from /usr/sbin, /sbin or /usr/bin; no shell, an empty environment, at
// most 10 s) and returns its standard output. NotFound: no nft, with the package to install;
// PermissionDenied: not allowed to change rules, with the mend; DeadlineExceeded; Internal: nft's
// own message. Blocks; not on a worker loop.
absl::StatusOr<std::string> RunNft(const std::vector<std::string>& arguments,
                                   const std::string& standard_input);

// What nft is told: JSON, or where control groups are matched nft's own language.
absl::StatusOr<std::string> RenderedForNft(const InterceptConfig& config);

// The routing that the rules need with tproxy.
PolicyRoute RouteOf(const InterceptConfig& config);

// Puts the rules in force, all or none, and replaces those of an earlier call with the same name;
// with tproxy the routing too, before them. Then reads them back and compares. Errors of RenderUp,
// RunNft, AddPolicyRoute and CompareTables.
absl::Status ApplyRules(const InterceptConfig& config);
// Removes the rules of that name, and the routing that they needed; OK when there were none.
absl::Status RemoveRules(const std::string& name);
// What the kernel holds, as nft prints it in JSON and as it was understood; nullopt: no rules of
// that name.
absl::StatusOr<std::optional<std::string>> ListRules(const std::string& name);
absl::StatusOr<std::optional<TableState>> ReadRules(const std::string& name);
// OK when the rules in force are those of `config`, by their chains and comments, else
// FailedPrecondition with the difference.
absl::Status VerifyRules(const InterceptConfig& config);

// What ListRules would print if the rules of `config` were in force: they are put into a network
// namespace of their own for a moment. PermissionDenied: this needs CAP_SYS_ADMIN.
absl::StatusOr<std::string> ListAsWanted(const InterceptConfig& config);

// Opens a connection to 192.0.2.1 (a documentation address where nobody answers) as the application
// would, and looks whether the outbound rule counted it and the connection ended on this host. A
// proxy that is running will note one failed connection. The rules must stand. FailedPrecondition:
// the connection was not caught; Unavailable: no route to that address, so that nothing is proved.
// Takes up to 3 s.
absl::Status ProbeOutbound(const InterceptConfig& config);

}  // namespace postern::intercept
