// SPDX-License-Identifier: Apache-2.0
// IssuerSource's dealings with time: this clock against the issuer's, clocks that are set, machines
// that sleep, and when the issuer last confirmed what is held.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>

#include "common/base/strings.h"
#include "postern/v1/identity.pb.h"
#include "postern/v1/state.pb.h"
#include "proxy/identity/identity_check.h"
#include "proxy/identity/issuer_source.h"

namespace postern::identity {
namespace {

constexpr absl::Duration kNotableSkew = absl::Seconds(30);
// A restart finds what is kept to be at most this much older than it is.
constexpr absl::Duration kSaveConfirmedEvery = absl::Minutes(1);

std::string TextOf(const ClockWatch::Break& found) {
  const auto rounded = [](absl::Duration duration) {
    return absl::FormatDuration(absl::Trunc(absl::AbsDuration(duration), absl::Milliseconds(1)));
  };
  std::string text;
  if (found.slept >= ClockWatch::kNotable) {
    text = base::StrCat("the machine slept for ", rounded(found.slept));
  }
  if (absl::AbsDuration(found.set) >= ClockWatch::kNotable) {
    base::StrAppend(text, text.empty() ? "" : ", ", "its clock was put ",
                    found.set > absl::ZeroDuration() ? "forward" : "back", " by ",
                    rounded(found.set));
  }
  return text;
}

}  // namespace

// What the certificate's times mean is different now, and who can put it right is the issuer.
void IssuerSource::OnClockBreak(const ClockWatch::Break& found) {
  spdlog::warn("{}: a new certificate is asked for at once", TextOf(found));
  if (const auto skew = times_.skew(); skew.has_value()) {
    times_.SetSkew(*skew + found.set);  // until it is measured again
  }
  const absl::Time ends = svid_ == nullptr ? absl::InfinitePast() : svid_->not_after();
  schedule_.OnClockBreak(clock_.SinceBoot(), ends - clock_.Now());
  if (call_ != nullptr && found.slept >= ClockWatch::kNotable) {
    // Its connection did not outlive the sleep, and would take its whole deadline to say so.
    call_.reset();
  }
  if (call_ == nullptr) {
    timer_.SetAt(schedule_.due());
  }
  mesh_.Hurry();
  sink_.OnSourceChanged();
}

void IssuerSource::NoteSkew(absl::Duration skew) {
  const absl::Duration former = times_.skew().value_or(absl::ZeroDuration());
  if (absl::AbsDuration(skew) >= kNotableSkew && absl::AbsDuration(former) < kNotableSkew) {
    spdlog::warn("{}: peers' certificates may look expired, or not valid yet", SkewText(skew));
  }
  times_.SetSkew(skew);
}

// A certificate that is good, but for this clock, is not used; yet it proves to the issuer who this
// is when the clock has been put right, and the token that it took is used up.
void IssuerSource::KeepForLater(x509::Svid svid,
                                std::shared_ptr<const x509::TrustBundleSet> bundles,
                                const v1::CertifyResponse& response) {
  const absl::Time issuers_now = clock_.Now() - times_.skew().value_or(absl::ZeroDuration());
  if (HoldsUsable() || !CheckIdentity(svid, *bundles, issuers_now).ok()) {
    return;
  }
  Hold(std::move(svid), std::move(bundles), response);
  SaveCertificate();
}

void IssuerSource::OnHeard(absl::Duration skew) {
  NoteSkew(skew);
  last_heard_ = clock_.Now();
  freshness_.OnHeard(clock_.SinceBoot());
  PublishConfirmed();
  sink_.OnSourceChanged();
}

void IssuerSource::OnApplied(TrustKind kind, bool ok) {
  const bool not_asked_for = kind == TrustKind::kPolicy && options_.own_policy;
  freshness_.OnApplied(kind, ok || not_asked_for, clock_.SinceBoot());
  PublishConfirmed();
}

// A clock that went back since makes it look newer, never older.
void IssuerSource::RestoreConfirmed() {
  if (bundles_ == nullptr || !bundles_speak_for_issuer_) {
    return;
  }
  if (const auto at = options_.state_dir->LoadConfirmed(); at.has_value()) {
    const absl::Duration age = std::max(clock_.Now() - *at, absl::ZeroDuration());
    freshness_.Restore(clock_.SinceBoot() - age);
    saved_confirmed_ = freshness_.AllConfirmed();
    PublishConfirmed();
  }
}

void IssuerSource::PublishConfirmed() {
  const std::optional<absl::Duration> confirmed = freshness_.AllConfirmed();
  times_.SetConfirmed(confirmed);
  if (confirmed.has_value() &&
      (!saved_confirmed_.has_value() || *confirmed - *saved_confirmed_ >= kSaveConfirmedEvery)) {
    SaveConfirmed();
  }
}

void IssuerSource::SaveConfirmed() {
  const std::optional<absl::Duration> confirmed = freshness_.AllConfirmed();
  if (!options_.state_dir.has_value() || !confirmed.has_value() || confirmed == saved_confirmed_) {
    return;
  }
  saved_confirmed_ = confirmed;
  NoteSaved(options_.state_dir->SaveConfirmed(clock_.Now() - (clock_.SinceBoot() - *confirmed)));
}

}  // namespace postern::identity
