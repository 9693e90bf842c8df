// SPDX-License-Identifier: Apache-2.0
#include "common/base/host_name.h"

#include <algorithm>

#include "common/base/strings.h"

namespace postern::base {
namespace {

constexpr size_t kMaxName = 253;  // RFC 1035 section 2.3.4, as text
constexpr size_t kMaxLabel = 63;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

bool IsOfLabel(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || IsDigit(c) || c == '-' || c == '_';
}

}  // namespace

bool IsHostName(std::string_view name) {
  if (name.empty() || name.size() > kMaxName) {
    return false;
  }
  const auto labels = Split(name, '.');
  for (const std::string_view label : labels) {
    if (label.empty() || label.size() > kMaxLabel || !std::ranges::all_of(label, IsOfLabel)) {
      return false;
    }
  }
  return !std::ranges::all_of(labels.back(), IsDigit);
}

std::string CanonicalHostName(std::string_view name) {
  if (name.ends_with('.')) {
    name.remove_suffix(1);
  }
  std::string canonical(name);
  std::ranges::transform(canonical, canonical.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return canonical;
}

}  // namespace postern::base
