// SPDX-License-Identifier: Apache-2.0
#include "control/attest/refusal.h"

#include <optional>
#include <string>

#include "absl/strings/cord.h"
#include "common/base/strings.h"

namespace postern::attest {
namespace {

constexpr char kPayloadUrl[] = "postern.dev/refusal-reason";

absl::StatusCode CodeOf(RefusalReason reason) noexcept {
  switch (reason) {
#define X(enumerator, token, code) \
  case RefusalReason::enumerator:  \
    return code;
    POSTERN_REFUSAL_REASONS(X)
#undef X
  }
  return absl::StatusCode::kInternal;
}

}  // namespace

const std::array<RefusalReason, kRefusalReasonCount> kAllRefusalReasons = {
#define X(enumerator, token, code) RefusalReason::enumerator,
    POSTERN_REFUSAL_REASONS(X)
#undef X
};

std::string_view Token(RefusalReason reason) noexcept {
  switch (reason) {
#define X(enumerator, token, code) \
  case RefusalReason::enumerator:  \
    return token;
    POSTERN_REFUSAL_REASONS(X)
#undef X
  }
  return "internal";
}

absl::Status Refuse(RefusalReason reason, std::string_view message) {
  absl::Status status(CodeOf(reason), base::ToAbsl(message));
  status.SetPayload(kPayloadUrl, absl::Cord(base::ToAbsl(Token(reason))));
  return status;
}

RefusalReason ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (payload.has_value()) {
    const std::string token(*payload);
    for (RefusalReason reason : kAllRefusalReasons) {
      if (Token(reason) == token) {
        return reason;
      }
    }
  }
  return RefusalReason::kInternal;
}

}  // namespace postern::attest
