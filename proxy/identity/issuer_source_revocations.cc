// SPDX-License-Identifier: Apache-2.0
// What IssuerSource does with the issuer's list of revocations.
#include <spdlog/spdlog.h>

#include <string>

#include "common/base/strings.h"
#include "postern/v1/state.pb.h"
#include "postern/v1/types.pb.h"
#include "proxy/identity/issuer_source.h"

namespace postern::identity {

void IssuerSource::RestoreRevocations() {
  if (!state_->has_revocations()) {
    return;
  }
  const auto restored =
      revocations_.Restore(state_->revocations(), options_.trust_domain, bundles_speak_for_issuer_);
  if (!restored.ok()) {
    spdlog::warn("the kept revocations are not used: {}", base::Message(restored));
    state_->clear_revocations();
    snapshot_lost_ = snapshot_lost_ || absl::IsInvalidArgument(restored);
    return;
  }
  UseRevocations();
}

absl::Status IssuerSource::OnRevocations(const v1::SignedRevocations& wire) {
  const x509::TrustBundle* const own = svid_ == nullptr || bundles_ == nullptr
                                           ? nullptr
                                           : bundles_->Find(svid_->id().trust_domain_name());
  if (own == nullptr) {
    return absl::FailedPreconditionError("there is no bundle yet to verify revocations by");
  }
  const absl::StatusOr<bool> taken = revocations_.Take(wire, *own, clock_.Now());
  if (!taken.ok()) {
    spdlog::error("the issuer's list of revocations is refused, the last good one goes on: {}",
                  base::Message(taken.status()));
    return taken.status();
  }
  if (*taken) {
    UseRevocations();
    *state_->mutable_revocations() = wire;
    SaveSnapshot();
    mesh_.UseForReconnect(ChannelOptions(/*with_certificate=*/true));
  }
  return absl::OkStatus();
}

void IssuerSource::UseRevocations() {
  sink_.OnRevocations(revocations_.set()->revocations(),
                      revocations_.version().value_or(Version{}));
  const std::string why = svid_ == nullptr ? "" : revocations_.WhyOwnIsRevoked(*svid_);
  if (!why.empty() && why != own_revoked_) {
    spdlog::error("this workload is revoked, no peer accepts it any more: {}", why);
  }
  own_revoked_ = why;
}

}  // namespace postern::identity
