// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace postern::config {

// One line "key = value" of a --config file. A value.
struct FileSetting {
  std::string key;
  int line = 0;
  std::vector<std::string> values;  // more or less than one only for a list
};

inline constexpr size_t kMaxConfigFileBytes = 1U << 20U;

// Reads the part of TOML 1.0 that flags need: keys without tables, and as values strings on one
// line, integers, booleans and lists of these. InvalidArgument "FILE:LINE: what is wrong and the
// mend" for anything else and for a key that stands twice. Pure.
absl::StatusOr<std::vector<FileSetting>> ParseConfigFile(std::string_view text,
                                                         std::string_view file_name);

}  // namespace postern::config
