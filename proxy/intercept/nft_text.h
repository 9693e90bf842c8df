// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postern::intercept {

// The commands of RenderUp in nft's own language, one a line, for `nft -f -`: nft's JSON has no
// word for the level of a control group. Knows the statements that Postern writes, no others
// (InvalidArgument). Pure.
absl::StatusOr<std::string> CommandsAsText(std::string_view nft_json);

}  // namespace postern::intercept
