// SPDX-License-Identifier: Apache-2.0
#include "control/service/revocation_verbs.h"

#include <utility>

#include "control/service/messages.h"

namespace postern::service {
namespace {

absl::Status Follow(const ServiceParts& parts, v1::RevokeResponse& response) {
  if (absl::Status published = parts.revocation_publisher->Publish(); !published.ok()) {
    return published;
  }
  const store::Version version = parts.revocations->list()->version;
  const mesh::MeshState::Followed followed =
      parts.mesh->AwaitRevocations(version, kRevocationPatience);
  *response.mutable_version() = ToMessage(version);
  response.set_connected_proxies(static_cast<uint32_t>(followed.connected));
  response.set_acknowledged(static_cast<uint32_t>(followed.acknowledged));
  return absl::OkStatus();
}

}  // namespace

absl::Status DoRevoke(const ServiceParts& parts, const v1::RevokeRequest& request,
                      v1::RevokeResponse& response) {
  absl::StatusOr<x509::Revocation> wanted = FromMessage(request.revocation());
  if (!wanted.ok()) {
    return wanted.status();
  }
  const absl::StatusOr<issue::Revocations::Made> made =
      parts.revocations->Revoke(*std::move(wanted));
  if (!made.ok()) {
    return made.status();
  }
  response.set_certificates(made->certificates);
  absl::Status followed = Follow(parts, response);
  if (followed.ok()) {
    // The number of this revocation, also if another one came in between.
    response.mutable_version()->set_sequence(made->revocation.sequence);
  }
  return followed;
}

absl::Status DoLift(const ServiceParts& parts, const v1::LiftRevocationRequest& request,
                    v1::RevokeResponse& response) {
  const auto lifted = parts.revocations->Lift(request.sequence());
  return lifted.ok() ? Follow(parts, response) : lifted.status();
}

absl::Status FollowDeletion(const ServiceParts& parts) {
  absl::Status read = parts.revocations->Reload();
  v1::RevokeResponse response;
  return read.ok() ? Follow(parts, response) : read;
}

}  // namespace postern::service
