// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "proxy/config/proxy_config.h"

namespace postern::config {

// One knob of postern-proxy: a row of the table from which the flags, the environment names, the
// keys of the --config file, --help, docs/CONFIG.md and /config are made. Defaults stand in
// ProxyConfig.
struct Knob {
  std::string_view group;  // heading in --help and docs
  std::string_view name;   // of the flag, without dashes
  std::string_view value;  // what to write there
  std::string_view doc;    // a sentence
  bool repeatable = false;
  // Takes one value; called once for each. InvalidArgument: what is wrong and the mend.
  absl::Status (*set)(ProxyConfig& config, std::string_view text) = nullptr;
  // The values as they could be given again; none when unset.
  std::vector<std::string> (*show)(const ProxyConfig& config) = nullptr;
};

std::span<const Knob> Knobs();

// "port-mode" -> "POSTERN_PORT_MODE".
std::string EnvironmentName(std::string_view name);

// What was given for one knob, from the source of highest precedence that names it.
struct Given {
  std::vector<std::string> values;
  std::string origin;  // "flag", "environment POSTERN_X", "file PATH:LINE"
  std::string label;   // how errors name it: "--x", "POSTERN_X", "PATH:LINE: x"
};

// Everything that was given, in the order of Knobs(): nullopt where nothing was.
using GivenKnobs = std::vector<std::optional<Given>>;

// Reads flags, environment and the --config file, values not looked at yet. Either of the two.
struct Reading {
  GivenKnobs given;
  std::optional<ParseExit> exit;
};
Reading ReadKnobs(int argc, const char* const* argv);

// What must hold over several knobs. InvalidArgument names the flags and the mend.
absl::Status CheckWhole(const ProxyConfig& config);

// The exit of a usage error.
ParseExit UsageError(std::string_view message);

}  // namespace postern::config
