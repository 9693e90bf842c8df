// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "control/service/staged_rotation.h"
#include "postern/v1/admin.pb.h"

// Between a staged rotation's values and the messages of postern.v1. Pure. What comes in is
// checked: InvalidArgument names the field.
namespace postern::service {

absl::StatusOr<ca::CaKind> FromMessage(v1::CaKind kind);
absl::StatusOr<RotationStep> FromMessage(v1::RotationStep step);
v1::CaStatus ToMessage(const RotationReport& report);

}  // namespace postern::service
