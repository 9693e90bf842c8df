// SPDX-License-Identifier: Apache-2.0
// What today's trust says of the peer of a connection: asked when it has shown who it is, and again
// whenever bundles, policy or revocations change while it is open.
#include "proxy/session/session.h"

namespace postern::session {
namespace {

using base::CloseReason;

}  // namespace

void Session::Recheck() {
  if (phase_ != Phase::kConnect && phase_ != Phase::kServerFirst && phase_ != Phase::kServerHeld &&
      phase_ != Phase::kRelay) {
    return;  // not judged yet
  }
  FailIfLost();
}

bool Session::FailIfLost() {
  std::optional<base::Failure> lost = Judge();
  if (!lost.has_value()) {
    return false;
  }
  if (lost->reason != CloseReason::kPeerRevoked) {
    lost->reason = CloseReason::kPolicyRevoked;
  }
  const int alert = AlertOf(*lost);
  Fail(*std::move(lost), alert);
  return true;
}

std::optional<base::Failure> Session::JudgePeer(const x509::VerifiedPeer* peer) const {
  if (peer == nullptr) {
    return std::nullopt;
  }
  base::Failure failure;
  failure.side = mesh_side();
  if (worker_.identity != nullptr && !worker_.identity->Trusts(*peer)) {
    failure.reason = CloseReason::kPeerUntrusted;
    failure.detail = absl::PermissionDeniedError("the peer's root is no longer trusted");
    return failure;
  }
  const x509::RevocationSet* const revoked = worker_.revocations->set.get();
  if (revoked != nullptr) {
    if (const std::optional<std::string> why = revoked->WhyRevoked(*peer)) {
      failure.reason = CloseReason::kPeerRevoked;
      failure.detail = absl::PermissionDeniedError(*why);
      return failure;
    }
  }
  return std::nullopt;
}

int Session::AlertOf(const base::Failure& refusal) {
  return refusal.reason == CloseReason::kPeerRevoked ? kAlertCertificateRevoked
                                                     : kAlertAccessDenied;
}

}  // namespace postern::session
