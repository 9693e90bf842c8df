// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/issuer_source.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/digest.h"
#include "postern/v1/identity.pb.h"
#include "postern/v1/mesh.pb.h"
#include "postern/v1/state.pb.h"
#include "proxy/identity/identity_check.h"
#include "proxy/identity/wire.h"

namespace postern::identity {
namespace {

constexpr std::chrono::milliseconds kTick{5000};
constexpr absl::Duration kSaveAfter = absl::Seconds(1);

bool IsKnown(const v1::Version& version) {
  return version.epoch() != 0 || version.sequence() != 0;
}

// The evidence does not hold, or attests to nothing: asking again with the same will not help soon.
bool IsRefusal(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
         absl::IsNotFound(status);
}

}  // namespace

IssuerSource::IssuerSource(net::Loop& loop, const base::Clock& clock, RandomFraction random,
                           Options options, EndpointCache& endpoints, SeenList& seen,
                           TrustClock& times, SourceSink& sink)
    : loop_(loop),
      clock_(clock),
      options_(std::move(options)),
      endpoints_(endpoints),
      seen_(seen),
      times_(times),
      sink_(sink),
      schedule_(random),
      timer_(loop, clock, [this] { Attempt(); }),
      save_timer_(loop, clock, [this] { SaveSnapshot(); }),
      tick_(loop, [this] { OnTick(); }),
      clock_watch_(loop, clock, [this](const ClockWatch::Break& found) { OnClockBreak(found); }),
      mesh_(loop, clock, random, *this, options_.serving),
      state_(std::make_unique<v1::ProxyState>()) {}

IssuerSource::~IssuerSource() {
  SaveConfirmed();
  endpoints_.SetUpstream({});
}

bool IssuerSource::IsUnix() const {
  return options_.target.starts_with("unix:");
}

bool IssuerSource::HoldsUsable() const {
  return svid_ != nullptr && svid_->CheckUsable(clock_.Now()).ok();
}

void IssuerSource::Start() {
  endpoints_.SetUpstream({[this](const std::vector<AddressKey>& keys) { mesh_.Subscribe(keys); },
                          [this](const std::vector<AddressKey>& keys) { mesh_.Unsubscribe(keys); },
                          [this] { mesh_.Hurry(); }});
  Restore();
  tick_.StartRepeating(kTick);
  clock_watch_.Start();
  timer_.SetAt(schedule_.due());
}

void IssuerSource::Reload() {
  if (call_ == nullptr && schedule_.failures() > 0) {
    timer_.SetAfter(absl::ZeroDuration());
  }
}

void IssuerSource::Renew() {
  schedule_.RenewNow(clock_.SinceBoot());
  if (call_ == nullptr) {
    timer_.SetAt(schedule_.due());
  }
}

void IssuerSource::OnTick() {
  endpoints_.Sweep();
  // The schedule goes by time passed; when the wall clock is set forward by a little that
  // ClockWatch passes over, the certificate ends early.
  if (svid_ != nullptr && !HoldsUsable() && call_ == nullptr && schedule_.failures() == 0) {
    schedule_.RenewNow(clock_.SinceBoot());
    timer_.SetAt(schedule_.due());
  }
}

// What the operator gave to know the issuer by, in one value that changes when it does.
std::string IssuerSource::TrustFingerprint() const {
  if (IsUnix()) {
    return "unix";
  }
  std::string text = options_.trust_domain->name() + '\n';
  text += options_.bundles != nullptr ? options_.bundles->ToSpiffeJson() : "";
  if (options_.pin.has_value()) {
    text += '\n' + base::ToHex(*options_.pin);
  }
  return std::string(base::AsText(x509::Sha256(base::AsBytes(text))));
}

void IssuerSource::Restore() {
  const std::string fingerprint = TrustFingerprint();
  if (!options_.state_dir.has_value()) {
    state_->set_trust_fingerprint(fingerprint);
    return;
  }
  if (auto read = options_.state_dir->LoadSnapshot(state_.get()); !read.ok()) {
    if (!absl::IsNotFound(read)) {
      spdlog::warn("the kept state is not used: {}", base::Message(read));
      snapshot_lost_ = true;
    }
    state_->Clear();
  }
  bundles_speak_for_issuer_ = state_->trust_fingerprint() == fingerprint;
  if (!bundles_speak_for_issuer_) {
    // Of another issuer, or of one that began anew: its versions say nothing about this one's.
    state_->set_trust_fingerprint(fingerprint);
    state_->clear_bundle_version();
    state_->mutable_policy()->clear_version();
    if (state_->policy().documents().empty()) {
      state_->clear_policy();
    }
  }
  RestoreRevocations();  // before there is an identity that could be used without them
  if (auto restored = RestoreIdentity(); !restored.ok() && !absl::IsNotFound(restored)) {
    spdlog::warn("the kept certificate is not used: {}", base::Message(restored));
  }
  if (!bundles_speak_for_issuer_ && svid_ != nullptr) {
    schedule_.RenewNow(clock_.SinceBoot());  // whether the issuer of now knows it, it will say
  }
  bundles_speak_for_issuer_ = bundles_speak_for_issuer_ && bundles_ != nullptr;
  if (state_->has_policy()) {
    const auto applied = sink_.OnPolicyDocuments(DocumentsFromWire(state_->policy()),
                                                 FromWire(state_->policy().version()));
    if (!applied.ok()) {
      spdlog::warn("the kept policy is not used: {}", base::Message(applied));
      state_->clear_policy();
    }
  }
  RestoreAnswers();
  RestoreConfirmed();
  if (svid_ != nullptr && bundles_ != nullptr) {
    // With all that was restored, for the Hello says what is held.
    mesh_.Connect(ChannelOptions(/*with_certificate=*/true));
  }
}

void IssuerSource::RestoreAnswers() {
  for (const auto& wire : state_->answers()) {
    if (const auto key = AddressFromWire(wire.asked()); key.has_value()) {
      endpoints_.Restore(*key, AnswerFromWire(wire), wire.SerializeAsString());
    }
  }
  state_->clear_answers();  // the cache has them now
}

absl::Status IssuerSource::RestoreIdentity() {
  auto svid = options_.state_dir->LoadSvid();
  if (!svid.ok()) {
    state_->clear_bundle_version();
    return svid.status();
  }
  const x509::TrustDomain trust_domain = svid->id().trust_domain();
  if (options_.trust_domain.has_value() && trust_domain != *options_.trust_domain) {
    state_->clear_bundle_version();
    return absl::FailedPreconditionError(
        base::StrCat("it is of the trust domain ", trust_domain.name()));
  }
  svid_ = std::make_shared<const x509::Svid>(*std::move(svid));
  auto bundles = options_.state_dir->LoadBundles(trust_domain);
  if (!bundles.ok()) {
    state_->clear_bundle_version();
    return bundles.status();
  }
  bundles_ = std::make_shared<const x509::TrustBundleSet>(*std::move(bundles));
  if (snapshot_lost_) {
    return absl::FailedPreconditionError(
        "what was revoked was kept with the state that is damaged: the issuer is asked first");
  }
  const absl::Time now = clock_.Now();
  if (auto checked = CheckIdentity(*svid_, *bundles_, now); !checked.ok()) {
    return checked;  // still good as evidence, if the issuer thinks so
  }
  PublishIdentity();
  const absl::Time issued = absl::FromUnixSeconds(state_->issued_at());
  schedule_.OnCertificate(clock_.SinceBoot(), now - issued, svid_->not_after() - issued);
  return absl::OkStatus();
}

rpc::IssuerChannelOptions IssuerSource::ChannelOptions(bool with_certificate) const {
  rpc::IssuerChannelOptions options;
  options.target = options_.target;
  options.clock = &clock_;
  if (options_.trust_domain.has_value() && !IsUnix()) {
    options.trust = rpc::IssuerTrust{*options_.trust_domain,
                                     bundles_speak_for_issuer_ ? bundles_ : options_.bundles,
                                     options_.pin, revocations_.set()};
  }
  if (with_certificate) {
    options.client = svid_;
  }
  return options;
}

// Getting a certificate.

Evidence IssuerSource::NextEvidence() const {
  return ChooseEvidence({.unix_socket = IsUnix(),
                         .certificate = svid_ != nullptr,
                         .member_key = !options_.files.member_key.empty(),
                         .join_token = !options_.files.join_token.empty()},
                        refused_last_);
}

void IssuerSource::Attempt() {
  if (call_ != nullptr) {
    return;
  }
  const Evidence evidence = NextEvidence();
  auto request = PrepareRequest(evidence, options_.files, options_.trust_domain);
  if (!request.ok()) {
    OnAttemptFailed(evidence, request.status(), absl::ZeroDuration());
    return;
  }
  pending_key_ = std::move(request->key);
  auto call = CertifyCall::Start(
      loop_, ChannelOptions(evidence == Evidence::kExisting), *request->message,
      [this, evidence](CertifyCall::Outcome outcome) { OnCertified(evidence, std::move(outcome)); },
      std::move(request->prove));
  if (!call.ok()) {
    OnAttemptFailed(evidence, call.status(), absl::ZeroDuration());
    return;
  }
  call_ = *std::move(call);
}

void IssuerSource::OnCertified(Evidence evidence, CertifyCall::Outcome outcome) {
  loop_.Defer([ended = std::shared_ptr<CertifyCall>(std::move(call_))] {});
  if (!outcome.status.ok()) {
    OnAttemptFailed(evidence, outcome.status, outcome.retry_after);
    return;
  }
  NoteSkew(outcome.clock_skew);
  last_heard_ = clock_.Now();
  if (auto accepted = Accept(*outcome.response); !accepted.ok()) {
    OnAttemptFailed(evidence, accepted, absl::ZeroDuration());
    return;
  }
  ++renewals_ok_;
  refused_last_.reset();
  renewal_error_ = absl::OkStatus();
  timer_.SetAt(schedule_.due());
  spdlog::info("certificate {} of {} until {}, next renewal in {}", svid_->serial(),
               svid_->id().uri(), absl::FormatTime(svid_->not_after(), absl::UTCTimeZone()),
               absl::FormatDuration(
                   absl::Trunc(schedule_.due() - clock_.SinceBoot(), absl::Milliseconds(1))));
  sink_.OnSourceChanged();
}

void IssuerSource::OnAttemptFailed(Evidence evidence, const absl::Status& status,
                                   absl::Duration retry_after) {
  pending_key_.reset();
  ++renewals_failed_;
  if (IsRefusal(status)) {
    refused_last_ = evidence;
  }
  renewal_error_ = status;
  schedule_.OnFailure(clock_.SinceBoot(), retry_after);
  timer_.SetAt(schedule_.due());
  spdlog::warn("no certificate from the issuer, again in {}: {}",
               absl::FormatDuration(
                   absl::Trunc(schedule_.due() - clock_.SinceBoot(), absl::Milliseconds(1))),
               base::Message(status));
  sink_.OnSourceChanged();
}

absl::StatusOr<x509::Svid> IssuerSource::CheckedSvid(const v1::CertifyResponse& response) {
  if (response.chain_der_size() > x509::kMaxChainDepth) {
    return absl::InvalidArgumentError("the issuer's answer holds too long a chain");
  }
  std::vector<x509::X509Ptr> chain;
  for (const std::string& der : response.chain_der()) {
    auto certificate = x509::CertificateFromDer(base::AsBytes(der));
    if (!certificate.ok()) {
      return certificate.status();
    }
    chain.push_back(*std::move(certificate));
  }
  auto svid = x509::Svid::Create(std::move(chain), std::move(pending_key_));
  if (!svid.ok()) {
    return svid;
  }
  const x509::TrustDomain trust_domain = svid->id().trust_domain();
  if (svid->id().uri() != response.spiffe_id() || svid->id() == rpc::IssuerId(trust_domain)) {
    return absl::InvalidArgumentError(
        base::StrCat("the issuer's answer is for ", svid->id().uri(), ", which it cannot be"));
  }
  if (options_.trust_domain.has_value() && trust_domain != *options_.trust_domain) {
    return absl::InvalidArgumentError(
        base::StrCat("the issuer's certificate is of the trust domain ", trust_domain.name(),
                     ", not ", options_.trust_domain->name()));
  }
  return svid;
}

absl::StatusOr<std::shared_ptr<const x509::TrustBundleSet>> IssuerSource::NewestBundles(
    const v1::CertifyResponse& response) {
  const Version held = FromWire(state_->bundle_version());
  const bool none_held = bundles_ == nullptr || !IsKnown(state_->bundle_version());
  if (!none_held && FromWire(response.bundles().version()) <= held) {
    return bundles_;  // the stream was faster
  }
  auto bundles = BundlesFromWire(response.bundles());
  if (!bundles.ok()) {
    return bundles.status();
  }
  return std::make_shared<const x509::TrustBundleSet>(*std::move(bundles));
}

absl::Status IssuerSource::Accept(const v1::CertifyResponse& response) {
  auto svid = CheckedSvid(response);
  if (!svid.ok()) {
    return svid.status();
  }
  auto bundles = NewestBundles(response);
  if (!bundles.ok()) {
    return bundles.status();
  }
  if (auto checked = CheckIdentity(*svid, **bundles, clock_.Now(), times_.SkewRemark());
      !checked.ok()) {
    KeepForLater(*std::move(svid), *std::move(bundles), response);
    return checked;
  }
  Adopt(*std::move(svid), *std::move(bundles), response);
  return absl::OkStatus();
}

void IssuerSource::Hold(x509::Svid svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
                        const v1::CertifyResponse& response) {
  svid_ = std::make_shared<const x509::Svid>(std::move(svid));
  if (bundles != bundles_) {
    bundles_ = std::move(bundles);
    *state_->mutable_bundle_version() = response.bundles().version();
  }
  bundles_speak_for_issuer_ = true;
  snapshot_lost_ = false;
  state_->set_issued_at(response.issued_at());
  state_->set_issuer_sends_revocations(response.sends_revocations());
  own_revoked_ = revocations_.WhyOwnIsRevoked(*svid_);
}

void IssuerSource::Adopt(x509::Svid svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
                         const v1::CertifyResponse& response) {
  Hold(std::move(svid), std::move(bundles), response);
  // By the issuer's clock or by ours, whichever ends first.
  const absl::Time ends = svid_->not_after();
  schedule_.OnCertificate(
      clock_.SinceBoot(), absl::ZeroDuration(),
      std::min(ends - absl::FromUnixSeconds(response.issued_at()), ends - clock_.Now()));
  freshness_.OnCertificate(clock_.SinceBoot());
  PublishConfirmed();
  PublishIdentity();
  SaveCertificate();
  mesh_.Connect(ChannelOptions(/*with_certificate=*/true));
}

// Keeping it.

void IssuerSource::NoteSaved(const absl::Status& status) {
  if (!status.ok() && status != state_error_) {
    spdlog::error("the state directory cannot be written, a restart will need what it lacks: {}",
                  base::Message(status));
  }
  state_error_ = status;
}

void IssuerSource::SaveCertificate() {
  if (!options_.state_dir.has_value()) {
    return;
  }
  // In this order a crash in between leaves at worst an old version beside newer bundles, which are
  // then sent once more.
  absl::Status status = options_.state_dir->SaveBundles(*bundles_);
  if (status.ok()) {
    status = options_.state_dir->SaveSvid(*svid_);
  }
  NoteSaved(status);
  if (status.ok()) {
    SaveSnapshot();
  }
}

void IssuerSource::SaveSnapshot() {
  if (!options_.state_dir.has_value()) {
    return;
  }
  v1::ProxyState whole = *state_;
  for (const std::string& answer : endpoints_.Remembered()) {
    whole.add_answers()->ParseFromString(answer);
  }
  NoteSaved(options_.state_dir->SaveSnapshot(whole));
}

// The stream.

absl::Status IssuerSource::OnBundles(const v1::BundleSet& wire) {
  const Version held = FromWire(state_->bundle_version());
  const Version offered = FromWire(wire.version());
  if (bundles_ != nullptr && IsKnown(state_->bundle_version()) && offered <= held) {
    return offered == held ? absl::OkStatus()
                           : absl::FailedPreconditionError("older than the bundles in use");
  }
  auto parsed = BundlesFromWire(wire);
  if (!parsed.ok()) {
    return parsed.status();
  }
  auto bundles = std::make_shared<const x509::TrustBundleSet>(*std::move(parsed));
  if (HoldsUsable()) {
    if (auto checked = CheckIdentity(*svid_, *bundles, clock_.Now(), times_.SkewRemark());
        !checked.ok()) {
      // The own root goes away: a certificate under one that stays is needed first.
      schedule_.RenewNow(clock_.SinceBoot());
      timer_.SetAt(schedule_.due());
      return checked;
    }
  }
  bundles_ = std::move(bundles);
  bundles_speak_for_issuer_ = true;
  *state_->mutable_bundle_version() = wire.version();
  if (HoldsUsable()) {
    PublishIdentity();
  }
  SaveCertificate();
  mesh_.UseForReconnect(ChannelOptions(/*with_certificate=*/true));
  return absl::OkStatus();
}

absl::Status IssuerSource::OnPolicy(const v1::PolicyDocuments& documents) {
  const Version held = FromWire(state_->policy().version());
  const Version offered = FromWire(documents.version());
  if (IsKnown(state_->policy().version()) && offered <= held) {
    return offered == held ? absl::OkStatus()
                           : absl::FailedPreconditionError("older than the policy in use");
  }
  if (auto applied = sink_.OnPolicyDocuments(DocumentsFromWire(documents), offered);
      !applied.ok()) {
    return applied;
  }
  *state_->mutable_policy() = documents;
  SaveSnapshot();
  return absl::OkStatus();
}

void IssuerSource::OnAnswer(const v1::MeshResponse_EndpointUpdate_Answer& answer) {
  if (const auto key = AddressFromWire(answer.asked()); key.has_value()) {
    endpoints_.OnAnswer(*key, AnswerFromWire(answer), answer.SerializeAsString());
  }
}

void IssuerSource::OnAnswersEnd() {
  NoteSaved(seen_.Save());
  if (!save_timer_.due().has_value()) {
    save_timer_.SetAfter(kSaveAfter);
  }
}

void IssuerSource::OnConnection() {
  // It is revoked, or its entry was deleted. Not: who answers is not the issuer, or does not know us
  // by our certificate (any more); renewing at once would bring everybody at the same time.
  const absl::Status& ended = mesh_.last_error();
  if (!mesh_.connected() && (absl::IsPermissionDenied(ended) || absl::IsNotFound(ended))) {
    OnCertificateRefused(base::Message(ended));
  } else if (mesh_.connected() && refused_last_ == Evidence::kExisting) {
    refused_last_.reset();  // it was lifted: no token is used up for what the certificate gives
  }
  NoteCertificateTaken();
  sink_.OnSourceChanged();
}

std::optional<Version> IssuerSource::HeldBundles() const {
  return bundles_ != nullptr && IsKnown(state_->bundle_version())
             ? std::optional(FromWire(state_->bundle_version()))
             : std::nullopt;
}

std::optional<Version> IssuerSource::HeldPolicy() const {
  return IsKnown(state_->policy().version()) ? std::optional(FromWire(state_->policy().version()))
                                             : std::nullopt;
}

std::vector<AddressKey> IssuerSource::Subscriptions() const {
  return endpoints_.Subscriptions();
}

void IssuerSource::Describe(IdentityStatus& status) const {
  status.source = "issuer";
  status.issuer = options_.target;
  status.issuer_connected = mesh_.connected();
  status.issuer_error = mesh_.connected() ? "" : std::string(base::Message(mesh_.last_error()));
  status.last_heard = last_heard_;
  status.renewals_ok = renewals_ok_;
  status.renewals_failed = renewals_failed_;
  status.next_renewal = clock_.Now() + (schedule_.due() - clock_.SinceBoot());
  status.renewal_error = std::string(base::Message(renewal_error_));
  status.clock_skew = times_.skew().value_or(absl::ZeroDuration());
  status.confirmed = freshness_.confirmed();
  if (times_.max_stale() != absl::InfiniteDuration()) {
    status.max_stale = times_.max_stale();
  }
  status.state_error = std::string(base::Message(state_error_));
  status.withheld = WhyWithheld();
}

}  // namespace postern::identity
