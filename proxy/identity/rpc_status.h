// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace postern::identity {

// gRPC's status as ours; the codes are the same numbers. `refusal` is IssuerChannel::LastRefusal:
// when the connection failed for it, it says more than gRPC does.
absl::Status FromGrpc(const grpc::Status& status, const std::string& refusal);

}  // namespace postern::identity
