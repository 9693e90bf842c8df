// SPDX-License-Identifier: Apache-2.0
#include "control/service/staged_rotation.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/strings.h"
#include "common/base/time_text.h"
#include "common/x509/trust_bundle.h"
#include "control/issue/issuer.h"
#include "control/service/federation.h"

namespace postern::service {
namespace {

using ca::CaFacts;
using ca::CaKind;
using ca::RotationPhase;
using ca::RotationState;
using store::CaRole;
using store::CaState;

constexpr absl::Duration kLookWhenIdle = absl::Minutes(1);
constexpr absl::Duration kLookWhenPrepared = absl::Seconds(1);
constexpr absl::Duration kLookWhenActive = absl::Seconds(10);
constexpr absl::Duration kComplainEvery = absl::Hours(1);
constexpr size_t kNamedInErrors = 5;

}  // namespace

// Of a CA from outside nothing stands in the store; what does is of a CA of our own before it.
absl::StatusOr<RotationState> StagedRotation::State() const {
  return parts_.plugged ? RotationState{} : parts_.rotation->State();
}

size_t StagedRotation::Behind() const {
  return NotFollowed().size() + (CheckTold().ok() ? 0 : 1);
}

std::vector<std::string> StagedRotation::NotFollowed() const {
  const store::Version present = parts_.mesh->bundles()->version;
  std::vector<std::string> names;
  for (const mesh::ProxyStatus& proxy : parts_.mesh->Proxies()) {
    if (proxy.acked_bundles < present) {
      names.push_back(base::StrCat(proxy.spiffe_id, " ", proxy.source.ToString(),
                                   proxy.last_error.empty() ? "" : ": ", proxy.last_error));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Where the store failed when the bundle was to be published, the mesh still tells the one before,
// which everybody has acknowledged.
absl::Status StagedRotation::CheckTold() const {
  const std::shared_ptr<const mesh::BundleSet> told = parts_.mesh->bundles();
  const std::shared_ptr<const x509::TrustBundleSet> held = parts_.signer->bundles();
  const x509::TrustBundle* const own = held->Find(parts_.signer->trust_domain().name());
  if (own != nullptr && !told->bundles.empty() && told->bundles.front() == RootsOf(*own)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "the present bundle has not been published yet; the issuer goes on trying");
}

absl::Status StagedRotation::CheckFollowed() const {
  if (absl::Status told = CheckTold(); !told.ok()) {
    return told;
  }
  const std::vector<std::string> missing = NotFollowed();
  if (missing.empty()) {
    return absl::OkStatus();
  }
  std::string text =
      base::StrCat(missing.size(), " connected proxies have not acknowledged the present bundle:");
  for (size_t i = 0; i < std::min(missing.size(), kNamedInErrors); ++i) {
    base::StrAppend(text, i == 0 ? " " : ", ", missing[i]);
  }
  base::StrAppend(text, missing.size() > kNamedInErrors ? ", ..." : "",
                  "; wait for them, mend or stop them, or force the step");
  return absl::FailedPreconditionError(text);
}

absl::Duration StagedRotation::GraceOf(absl::Duration life) const {
  return parts_.renewal_grace ? parts_.renewal_grace(life) : absl::ZeroDuration();
}

// A certificate is done with when its owner has shown the one that came after it: in a mesh stream,
// or for the next renewal. That it was sent proves nothing, the answer may have been lost.
absl::StatusOr<absl::Time> StagedRotation::OldCertificatesUntil(const RotationState& state) const {
  absl::flat_hash_set<std::string> old_cas;
  for (const CaFacts& ca : state.cas) {
    if (ca.record.state == CaState::kRetired) {
      old_cas.insert(ca.record.id);
    }
  }
  const absl::Time now = parts_.clock->Now();
  const auto live = parts_.certificates->ListLive(now - GraceOf(issue::kMaxTtl));
  if (!live.ok()) {
    return live.status();
  }
  absl::flat_hash_set<std::string> shown;
  for (const mesh::ProxyStatus& proxy : parts_.mesh->Proxies()) {
    shown.insert(proxy.serial);
  }
  for (const store::LiveCertificate& one : *live) {
    shown.insert(one.replaces);
  }
  absl::flat_hash_set<std::string> done;
  for (const store::LiveCertificate& one : *live) {
    if (shown.contains(one.serial)) {
      done.insert(one.replaces);
    }
  }
  absl::Time until = absl::UnixEpoch();
  for (const store::LiveCertificate& one : *live) {
    const absl::Time ends = one.not_after + GraceOf(one.not_after - one.issued_at);
    if (old_cas.contains(one.ca_id) && !done.contains(one.serial) && ends > now) {
      until = std::max(until, ends);
    }
  }
  return until;
}

absl::Status StagedRotation::CheckUnused(const RotationState& state) const {
  const absl::StatusOr<absl::Time> until = OldCertificatesUntil(state);
  if (!until.ok()) {
    return until.status();
  }
  if (*until == absl::UnixEpoch()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(base::StrCat(
      "certificates of the old CA are in use, the last of them until ", base::TimeText(*until),
      " or until it is renewed; wait, or force the step: then they are worth nothing "
      "any more, and connections that stand on a root that goes are ended"));
}

absl::Status StagedRotation::Make(CaKind kind, RotationStep step, bool force) {
  const std::lock_guard lock(step_mutex_);
  const absl::StatusOr<RotationState> state = State();
  if (!state.ok()) {
    return state.status();
  }
  const bool gated = !force && state->kind == kind;
  absl::Status status;
  switch (step) {
    case RotationStep::kPrepare:
      return parts_.rotation->Prepare(kind);
    case RotationStep::kActivate:
      if (gated && state->phase == RotationPhase::kPrepared) {
        status = CheckFollowed();
      }
      return status.ok() ? parts_.rotation->Activate(kind) : status;
    case RotationStep::kRetire:
      if (gated && state->phase == RotationPhase::kActive) {
        status = CheckFollowed();
        status.Update(CheckUnused(*state));
      }
      return status.ok() ? parts_.rotation->Retire(kind, /*in_order=*/!force) : status;
    case RotationStep::kAbort:
      return parts_.rotation->Abort(kind);
  }
  return absl::InternalError("no such step");
}

absl::Status StagedRotation::Step(CaKind kind, RotationStep step, bool force) {
  if (parts_.plugged) {
    return absl::FailedPreconditionError(
        "this issuer's CA comes from outside (--ca-dir): replace it there, the issuer follows");
  }
  const absl::Status status = Make(kind, step, force);
  {
    const std::lock_guard lock(mutex_);
    unsettled_ = unsettled_ || !status.ok();  // maybe after the store's change; Resume hurts nobody
  }
  parts_.on_change();
  return status;
}

absl::StatusOr<RotationReport> StagedRotation::Report() const {
  absl::StatusOr<RotationState> state = State();
  if (!state.ok()) {
    return state.status();
  }
  RotationReport report;
  if (state->phase == RotationPhase::kActive) {
    const absl::StatusOr<absl::Time> until = OldCertificatesUntil(*state);
    if (!until.ok()) {
      return until.status();
    }
    report.old_certificates_until = *until;
  }
  for (const x509::AgingRoot& root :
       x509::FindAgingRoots(*parts_.signer->bundles(), parts_.clock->Now())) {
    report.warnings.push_back(base::StrCat(root.Sentence(), "; ", NextRootComes(*state)));
  }
  report.state = *std::move(state);
  report.bundle_version = parts_.mesh->bundles()->version;
  report.not_followed = NotFollowed();
  const std::lock_guard lock(mutex_);
  report.blocked = blocked_;
  return report;
}

absl::StatusOr<RotationGauges> StagedRotation::Gauges() const {
  absl::StatusOr<RotationState> state = State();
  if (!state.ok()) {
    return state.status();
  }
  const uint64_t aging =
      x509::FindAgingRoots(*parts_.signer->bundles(), parts_.clock->Now()).size();
  const std::lock_guard lock(mutex_);
  return RotationGauges{*std::move(state), NotFollowed().size(), !blocked_.empty(), aging};
}

bool StagedRotation::IsPast(double part, const CaFacts& ca) const {
  const absl::Duration life = ca.not_after - ca.record.created_at;
  return parts_.clock->Now() >= ca.record.created_at + part * life;
}

// One of the CAs that the rotation under way replaces; null: none is that old yet, so that the
// rotation is an operator's.
const CaFacts* StagedRotation::FindPast(double part, const RotationState& state, CaState of) const {
  for (const CaFacts& ca : state.cas) {
    const bool replaced = state.kind == CaKind::kRoot || ca.record.role == CaRole::kIntermediate;
    if (replaced && ca.record.state == of && IsPast(part, ca)) {
      return &ca;
    }
  }
  return nullptr;
}

absl::Status StagedRotation::DriveIdle(const RotationState& state) {
  const CaFacts* root = state.Find(CaRole::kRoot, CaState::kCurrent);
  const CaFacts* intermediate = state.Find(CaRole::kIntermediate, CaState::kCurrent);
  if (root == nullptr || intermediate == nullptr) {
    return absl::OkStatus();
  }
  const bool root_due = IsPast(kDueAfter, *root);
  // One that ends with its root gains nothing by another below the same root.
  const bool intermediate_due =
      IsPast(kDueAfter, *intermediate) && intermediate->not_after < root->not_after;
  if (!root_due && !intermediate_due) {
    return absl::OkStatus();
  }
  absl::Status prepared = Step(root_due ? CaKind::kRoot : CaKind::kIntermediate,
                               RotationStep::kPrepare, /*force=*/false);
  if (prepared.ok()) {
    look_at_ = parts_.clock->SinceBoot() + kLookWhenPrepared;
  }
  return prepared;
}

// A proxy acknowledges when it has handed the bundle to its workers; until the next look they have
// it.
absl::Status StagedRotation::DrivePrepared(const RotationState& state) {
  if (FindPast(kDueAfter, state, CaState::kCurrent) == nullptr) {
    return absl::OkStatus();
  }
  const absl::Status followed = CheckFollowed();
  const CaFacts* late = FindPast(kLateAfter, state, CaState::kCurrent);
  const bool twice = all_followed_ && followed.ok();
  all_followed_ = followed.ok();
  if (!followed.ok() && late == nullptr) {
    return followed;
  }
  if (!followed.ok()) {
    spdlog::error(
        "the old CA ends at {}: the rotation of the {} goes on without those that have not "
        "followed: {}",
        base::TimeText(late->not_after), NameOf(state.kind), base::Message(followed));
  }
  return twice || late != nullptr
             ? Step(state.kind, RotationStep::kActivate, /*force=*/!followed.ok())
             : absl::OkStatus();
}

absl::Status StagedRotation::DriveActive(const RotationState& state) {
  if (FindPast(kDueAfter, state, CaState::kRetired) == nullptr) {
    return absl::OkStatus();
  }
  const absl::StatusOr<absl::Time> until = OldCertificatesUntil(state);
  if (!until.ok()) {
    return until.status();
  }
  if (*until != absl::UnixEpoch()) {
    return absl::OkStatus();  // it takes its time, which is no hindrance
  }
  return Step(state.kind, RotationStep::kRetire, /*force=*/false);
}

absl::Status StagedRotation::Drive() {
  const absl::StatusOr<RotationState> state = State();
  if (!state.ok()) {
    return state.status();
  }
  const absl::Duration now = parts_.clock->SinceBoot();
  switch (state->phase) {
    case RotationPhase::kNone:
      all_followed_ = false;
      look_at_ = now + kLookWhenIdle;
      return DriveIdle(*state);
    case RotationPhase::kPrepared:
      look_at_ = now + kLookWhenPrepared;
      return DrivePrepared(*state);
    case RotationPhase::kActive:
      look_at_ = now + kLookWhenActive;
      return DriveActive(*state);
  }
  return absl::OkStatus();
}

void StagedRotation::NoteBlocked(const absl::Status& status) {
  std::string text(base::Message(status));
  const std::lock_guard lock(mutex_);
  const absl::Duration now = parts_.clock->SinceBoot();
  const bool again = now - complained_at_ >= kComplainEvery;
  if (!status.ok() && (blocked_.empty() || again)) {
    complained_at_ = now;
    spdlog::error("the automatic rotation of the CA is held up: {}", text);
  }
  blocked_ = status.ok() ? std::string() : std::move(text);
}

// What an operator need not do, or has to.
std::string StagedRotation::NextRootComes(const RotationState& state) const {
  if (parts_.plugged) {
    return "give --ca-dir a CA below the next root before that";
  }
  if (state.phase != RotationPhase::kNone && state.kind == CaKind::kRoot) {
    return "the rotation to the next one is under way";
  }
  const CaFacts* const root = state.Find(CaRole::kRoot, CaState::kCurrent);
  if (!parts_.automatic || root == nullptr) {
    return "`postern ca rotate --kind root` makes the next one, and nobody else does";
  }
  const absl::Duration life = root->not_after - root->record.created_at;
  return base::StrCat("the automatic rotation begins at ",
                      base::TimeText(root->record.created_at + kDueAfter * life),
                      ", `postern ca rotate --kind root` does it now");
}

void StagedRotation::RemindOfRoots() {
  const absl::Duration now = parts_.clock->SinceBoot();
  if (now - reminded_at_ < kLookWhenIdle) {
    return;
  }
  const absl::StatusOr<RotationState> state = State();
  if (!state.ok()) {
    return;  // the store's error is told by whoever needs it
  }
  reminded_at_ = now;
  for (const x509::AgingRoot& root :
       reminder_.Look(*parts_.signer->bundles(), parts_.clock->Now())) {
    spdlog::warn("{}; {}", root.Sentence(), NextRootComes(*state));
  }
}

void StagedRotation::Tick() {
  RemindOfRoots();
  bool finish = false;
  {
    const std::lock_guard lock(mutex_);
    finish = unsettled_;
  }
  if (finish) {
    const absl::Status settled = parts_.rotation->Resume();
    if (settled.ok()) {
      const std::lock_guard lock(mutex_);
      unsettled_ = false;
    }
    parts_.on_change();
  }
  if (parts_.automatic && !parts_.plugged && parts_.clock->SinceBoot() >= look_at_) {
    NoteBlocked(Drive());
  }
}

absl::Status StagedRotation::RecoverExpired() {
  if (!parts_.automatic || parts_.plugged) {
    return absl::FailedPreconditionError("the CA is not rotated automatically");
  }
  const absl::StatusOr<RotationState> state = State();
  if (!state.ok()) {
    return state.status();
  }
  // All that the expired one signed has expired with it, so there is nobody to wait for.
  if (state->phase == RotationPhase::kActive) {
    absl::Status retired = Step(state->kind, RotationStep::kRetire, /*force=*/false);
    if (!retired.ok()) {
      return retired;
    }
  }
  const CaKind kind =
      state->phase == RotationPhase::kPrepared ? state->kind : CaKind::kIntermediate;
  for (const RotationStep step : {RotationStep::kPrepare, RotationStep::kActivate}) {
    if (absl::Status status = Step(kind, step, /*force=*/true); !status.ok()) {
      return status;
    }
  }
  spdlog::warn("the intermediate had expired: a new one signs");
  return absl::OkStatus();
}

}  // namespace postern::service
