// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <type_traits>

namespace postern::base {

// The place of an enumerator in an array that has one element for each. Pure.
template <typename Enum>
constexpr size_t At(Enum value) {
  static_assert(std::is_enum_v<Enum>);
  return static_cast<size_t>(value);
}

}  // namespace postern::base
