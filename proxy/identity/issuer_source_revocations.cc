// SPDX-License-Identifier: Apache-2.0
// What IssuerSource does with the issuer's list of revocations.
#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

#include "common/base/strings.h"
#include "postern/v1/state.pb.h"
#include "postern/v1/types.pb.h"
#include "proxy/identity/issuer_source.h"
#include "proxy/identity/wire.h"

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
  const bool withheld = AwaitsRevocations();
  const absl::StatusOr<bool> taken = revocations_.Take(wire, *own, clock_.Now());
  revocations_error_ = taken.status();
  if (!taken.ok()) {
    spdlog::error("the issuer's list of revocations is refused, the last good one goes on: {}",
                  base::Message(taken.status()));
    return taken.status();
  }
  if (*taken) {
    UseRevocations();
    if (withheld && HoldsUsable()) {
      PublishIdentity();
    }
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
    OnCertificateRefused(why);
  }
  own_revoked_ = why;
  NoteCertificateTaken();
}

// Without a list every revoked peer would be taken for a good one. Of what is known of an issuer,
// this is: whether it sends lists, by its last certificate; where that was lost, it is heard first.
bool IssuerSource::AwaitsRevocations() const {
  return revocations_.set() == nullptr && (state_->issuer_sends_revocations() || snapshot_lost_);
}

std::string IssuerSource::WhyWithheld() const {
  if (svid_ == nullptr || !AwaitsRevocations()) {
    return {};
  }
  return base::StrCat(
      "the issuer's first list of revocations has not come yet",
      revocations_error_.ok() ? "" : ", and one was refused: ", base::Message(revocations_error_));
}

void IssuerSource::PublishIdentity() {
  if (AwaitsRevocations()) {
    spdlog::info("the certificate waits for the issuer's first list of revocations");
    return;
  }
  sink_.OnIdentity(svid_, bundles_, FromWire(state_->bundle_version()));
}

// Once for each certificate: from there on the schedule goes through what there is to show, at its
// own pace.
void IssuerSource::OnCertificateRefused(std::string_view why) {
  if (svid_ == nullptr || svid_->serial() == given_up_) {
    return;
  }
  given_up_ = svid_->serial();
  const bool more_to_show =
      IsUnix() || !options_.files.member_key.empty() || !options_.files.join_token.empty();
  if (!more_to_show) {
    return;
  }
  spdlog::warn("the certificate is worth nothing any more, another one is asked for at once: {}",
               why);
  refused_last_ = Evidence::kExisting;
  Renew();
}

// A revocation that was lifted is over: the next one of the same certificate is news.
void IssuerSource::NoteCertificateTaken() {
  if (mesh_.connected() && own_revoked_.empty()) {
    given_up_.clear();
  }
}

}  // namespace postern::identity
