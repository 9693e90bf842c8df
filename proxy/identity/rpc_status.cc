// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/rpc_status.h"

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::identity {
namespace {

constexpr size_t kLongestMessage = 512;

}  // namespace

absl::Status FromGrpc(const grpc::Status& status, const std::string& refusal) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (code == absl::StatusCode::kUnavailable && !refusal.empty()) {
    return absl::UnavailableError(refusal);
  }
  return {code, base::ToAbsl(base::LineSafe(status.error_message(), kLongestMessage))};
}

}  // namespace postern::identity
