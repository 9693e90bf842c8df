// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "control/service/certify_service.h"
#include "postern/v1/admin.pb.h"

namespace postern::service {

// How long a command waits for the connected proxies to apply what it changed.
inline constexpr absl::Duration kRevocationPatience = absl::Seconds(1);

// The operator's verbs on revocations, for AdminService, which has checked who asks. Each returns
// when the connected proxies have applied the new list, or after kRevocationPatience. They block on
// the store.
absl::Status DoRevoke(const ServiceParts& parts, const v1::RevokeRequest& request,
                      v1::RevokeResponse& response);
absl::Status DoLift(const ServiceParts& parts, const v1::LiftRevocationRequest& request,
                    v1::RevokeResponse& response);
// After an entry was deleted: the certificates that the store revoked with it.
absl::Status FollowDeletion(const ServiceParts& parts);

}  // namespace postern::service
