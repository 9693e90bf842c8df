// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace postern::base {

// Debian builds abseil with a string_view of its own, which does not convert to and from the standard
// one. These go between the two (and compile where the two are one).
inline absl::string_view ToAbsl(std::string_view text) {
  return {text.data(), text.size()};
}
inline std::string_view ToStd(absl::string_view text) {
  return {text.data(), text.size()};
}

// The message of a status. Lives as long as the status.
inline std::string_view Message(const absl::Status& status) {
  return ToStd(status.message());
}

namespace internal {
template <typename T>
const T& StrCatArgument(const T& value) {
  return value;
}
inline absl::string_view StrCatArgument(const std::string_view& text) {
  return ToAbsl(text);
}
}  // namespace internal

// absl::StrCat that also takes std::string_view.
template <typename... Parts>
std::string StrCat(const Parts&... parts) {
  return absl::StrCat(internal::StrCatArgument(parts)...);
}

}  // namespace postern::base
