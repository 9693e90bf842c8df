// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proxy/intercept/rules.h"

namespace postern::intercept {

// Runs the `nft` program (from /usr/sbin, /sbin or /usr/bin; no shell, an empty environment, at
// most 10 s) and returns its standard output. NotFound: no nft, with the package to install;
// PermissionDenied: not allowed to change rules, with the mend; DeadlineExceeded; Internal: nft's
// own message. Blocks; not on a worker loop.
absl::StatusOr<std::string> RunNft(const std::vector<std::string>& arguments,
                                   const std::string& standard_input);

// Puts the rules in force, all or none, and replaces those of an earlier call with the same name.
// Then reads them back and compares. Errors of RenderUp, RunNft and CompareTables.
absl::Status ApplyRules(const InterceptConfig& config);
// Removes the rules of that name; OK when there were none.
absl::Status RemoveRules(const std::string& name);
// What the kernel holds; nullopt: no rules of that name.
absl::StatusOr<std::optional<TableState>> ReadRules(const std::string& name);
// OK when the rules in force are those of `config`, else FailedPrecondition with the difference.
absl::Status VerifyRules(const InterceptConfig& config);

// Opens a connection to 192.0.2.1 (a documentation address where nobody answers) as the application
// would, and looks whether the outbound rule counted it and the connection ended on this host. A
// proxy that is running will note one failed connection. The rules must stand. FailedPrecondition:
// the connection was not caught; Unavailable: no route to that address, so that nothing is proved.
// Takes up to 3 s.
absl::Status ProbeOutbound(const InterceptConfig& config);

}  // namespace postern::intercept
