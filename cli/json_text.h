// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace postern::cli {

// Prints a daemon's JSON page: as it is ("json", indented) or as "name: value" lines for a person
// ("text"). Internal when the page is no JSON.
absl::Status PrintJsonPage(const std::string& page, const std::string& output, std::ostream& out);

}  // namespace postern::cli
