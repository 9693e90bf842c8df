// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/command.h"
#include "proxy/intercept/rules.h"

namespace postern::cli {

// What the command line says of the rules that should be in force, as text; checked as a whole by
// RulesFrom. The same flags for every verb that is about such rules.
struct RuleOptions {
  std::string mode = "redirect";
  std::string name;
  bool no_inbound = false, no_outbound = false, fail_closed = false;
  uint16_t inbound_port = 15006, outbound_port = 15001;
  std::vector<uint16_t> own_ports;
  std::vector<std::string> proxy_uids, proxy_gids, app_uids, app_gids, exclude_uids, exclude_gids;
  std::vector<std::string> app_cgroups, exclude_cgroups;
  uint32_t proxy_mark = 0;
  uint32_t pass_mark = intercept::InterceptConfig().pass_mark;
  uint32_t return_mark = intercept::InterceptConfig().return_mark;
  std::vector<std::string> inbound_ports, outbound_ports, no_inbound_ports, no_outbound_ports;
  std::vector<std::string> cidrs, no_cidrs, no_source_cidrs, no_interfaces;
};

void AddRuleOptions(CLI::App* command, RuleOptions* options);

// InvalidArgument names the flag, the value and the mend.
absl::StatusOr<intercept::InterceptConfig> RulesFrom(const RuleOptions& options);

// The verbs that compare rules with what should be there: diff, watch.
void AddDiff(CLI::App* noun, Context& context);
void AddWatch(CLI::App* noun, Context& context);

}  // namespace postern::cli
