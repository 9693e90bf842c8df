// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/command.h"

namespace postern::cli {

// `postern policy test`: asks the documents what the files of expectations say, and prints every
// expectation that does not hold, with its line and with the rule that decided.
//   apiVersion: postern.dev/v1
//   kind: PolicyTest
//   metadata: {name: db}
//   spec:
//     policies: [policy.yaml]         # seen from this file; those of -f come in addition
//     expectations:
//       - {from: spiffe://td/web, to: "spiffe://td/db:5432", expect: allow}
//       - {from: none, to: "spiffe://td/db:9000", sourceIp: 192.0.2.1, expect: deny}
//       - {from: spiffe://td/batch/1, to: "spiffe://td/db:5432", expect: audit,
//          rule: "no-batch / rule 1", mode: strict}
// allow: let in, and nothing in audit mode speaks against it. audit: let in, though enforcing the
// audited documents would refuse it. `rule`: what must decide (of audit: what would refuse).
// `mode`: the port's mode, where no document says one. `tunnel`: the tunnel's name. Ok: all hold.
// AlreadySaid: not all. InvalidArgument: a file that is not as it must be.
absl::Status TestPolicy(const std::vector<std::string>& expectation_files,
                        const std::vector<std::string>& policy_files, Context& context);

}  // namespace postern::cli
