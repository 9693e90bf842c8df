// SPDX-License-Identifier: Apache-2.0
#include "common/base/failure.h"

namespace postern::base {

std::string_view Token(Direction direction) noexcept {
  return direction == Direction::kInbound ? "inbound" : "outbound";
}

std::string_view Token(Side side) noexcept {
  return side == Side::kDownstream ? "downstream" : "upstream";
}

}  // namespace postern::base
