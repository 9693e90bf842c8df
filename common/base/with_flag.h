// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "common/base/strings.h"

namespace postern::base {

// The same error, named by the flag that led to it: "--admin: ...". Pure.
inline absl::Status WithFlag(std::string_view flag, const absl::Status& status) {
  return {status.code(), ToAbsl(StrCat(flag, ": ", Message(status)))};
}

}  // namespace postern::base
