// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proxy/config/proxy_config.h"

namespace postern::config {

using Arguments = std::vector<std::string>;

inline const Arguments kFiles = {"--svid", "a.pem", "--svid-key", "a.key", "--bundle", "b.pem"};

inline Arguments Plus(Arguments first, const Arguments& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

inline const Arguments kRedirect = Plus(kFiles, {"--intercept", "redirect", "--workers", "1"});

// As if the program had been started with these.
inline ParseOutcome Parse(const Arguments& arguments) {
  std::vector<const char*> argv = {"postern-proxy"};
  for (const std::string& argument : arguments) {
    argv.push_back(argument.c_str());
  }
  ParseOutcome outcome = ParseProxyConfig(static_cast<int>(argv.size()), argv.data());
  EXPECT_NE(outcome.config.has_value(), outcome.exit.has_value());
  return outcome;
}

// The text of the usage error, "accepted" without one.
inline std::string Refusal(const Arguments& arguments) {
  const ParseOutcome outcome = Parse(arguments);
  if (!outcome.exit) {
    return "accepted";
  }
  EXPECT_EQ(outcome.exit->exit_code, 2);
  return outcome.exit->text;
}

}  // namespace postern::config
