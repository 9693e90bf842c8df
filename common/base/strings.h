// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace postern::base {

// Debian builds abseil with a string_view of its own, which does not convert to and from the
// standard one. These go between the two (and compile where the two are one).
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

// absl::StrAppend that also takes std::string_view.
template <typename... Parts>
void StrAppend(std::string& out, const Parts&... parts) {
  out += StrCat(parts...);
}

// The parts between the separators, empty ones too; one empty part for an empty text. They live as
// long as the text.
inline std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t at = text.find(separator); at != std::string_view::npos; at = text.find(separator)) {
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + 1);
  }
  parts.push_back(text);
  return parts;
}

// The whole text as a number; nullopt for anything else (a sign that the type lacks, blanks,
// overflow).
template <typename Number>
std::optional<Number> ParseNumber(std::string_view text, int radix = 10) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, radix);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
    return std::nullopt;
  }
  return number;
}

}  // namespace postern::base
