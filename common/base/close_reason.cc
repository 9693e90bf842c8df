// SPDX-License-Identifier: Apache-2.0
#include "common/base/close_reason.h"

#include <algorithm>

namespace postern::base {
namespace {

struct Row {
  std::string_view token;
  std::string_view what;
  std::string_view mend;
};

constexpr std::array<Row, kCloseReasonCount> kRows = {{
#define X(enumerator, token, what, mend) {token, what, mend},
    POSTERN_CLOSE_REASONS(X)
#undef X
}};

// A value outside the list can only come from a cast; it is shown as what it is: a fault of ours.
const Row& RowOf(CloseReason reason) noexcept {
  const size_t index =
      std::min(static_cast<size_t>(reason), static_cast<size_t>(CloseReason::kInternal));
  return kRows[index];
}

}  // namespace

const std::array<CloseReason, kCloseReasonCount> kAllCloseReasons = {{
#define X(enumerator, token, what, mend) CloseReason::enumerator,
    POSTERN_CLOSE_REASONS(X)
#undef X
}};

static_assert(static_cast<size_t>(CloseReason::kInternal) + 1 == kCloseReasonCount,
              "RowOf needs kInternal to be the last row");

std::string_view Token(CloseReason reason) noexcept {
  return RowOf(reason).token;
}
std::string_view Describe(CloseReason reason) noexcept {
  return RowOf(reason).what;
}
std::string_view Mend(CloseReason reason) noexcept {
  return RowOf(reason).mend;
}

std::optional<CloseReason> ParseCloseReason(std::string_view token) noexcept {
  for (const CloseReason reason : kAllCloseReasons) {
    if (Token(reason) == token) {
      return reason;
    }
  }
  return std::nullopt;
}

}  // namespace postern::base
