// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_rotation.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "control/ca/ca_maker.h"
#include "control/ca/ca_view.h"
#include "control/ca/key_files.h"

namespace postern::ca {
namespace {

using store::CaRecord;
using store::CaRole;
using store::CaState;

RotationPhase PhaseOf(const RotationState& state) {
  const auto has = [&state](CaState wanted) {
    return std::any_of(state.cas.begin(), state.cas.end(),
                       [wanted](const CaFacts& ca) { return ca.record.state == wanted; });
  };
  if (has(CaState::kRetired)) {
    return RotationPhase::kActive;
  }
  return has(CaState::kNext) ? RotationPhase::kPrepared : RotationPhase::kNone;
}

CaKind KindOf(const RotationState& state) {
  const CaState moved = state.phase == RotationPhase::kActive ? CaState::kRetired : CaState::kNext;
  return state.Find(CaRole::kRoot, moved) != nullptr ? CaKind::kRoot : CaKind::kIntermediate;
}

// What is under way is of this kind, or nothing is.
absl::Status CheckKind(const RotationState& state, CaKind kind) {
  if (state.phase == RotationPhase::kNone || state.kind == kind) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      base::StrCat("a rotation of the ", NameOf(state.kind), " is under way (", NameOf(state.phase),
                   "): finish it first, or abort it while it is only prepared"));
}

// What the records will be once the step is made.
std::vector<CaRecord> AfterActivation(const RotationState& state) {
  std::vector<CaRecord> records;
  for (const CaFacts& ca : state.cas) {
    CaRecord record = ca.record;
    if (record.state == CaState::kCurrent && state.Find(record.role, CaState::kNext) != nullptr) {
      record.state = CaState::kRetired;
    } else if (record.state == CaState::kNext) {
      record.state = CaState::kCurrent;
    }
    records.push_back(std::move(record));
  }
  return records;
}

// The root that there is, as the issuer of a new intermediate.
absl::StatusOr<NewCa> OpenRoot(const RotationState& state, const KeyFiles& keys, absl::Time now) {
  const CaFacts* root = state.Find(CaRole::kRoot, CaState::kCurrent);
  if (root == nullptr) {
    return absl::DataLossError("the store has no current root: restore a backup");
  }
  if (now >= root->not_after) {
    return absl::FailedPreconditionError(
        "the root has expired: an intermediate below it would be worth nothing; rotate the root");
  }
  if (!root->key_present) {
    return absl::FailedPreconditionError(base::StrCat(
        "the root's key is not in the state directory, and only it can sign a new intermediate: "
        "put ",
        keys.directory(), "/", KeyFiles::FileName(root->record.role, root->record.id),
        " back (0600, the issuer's user) and take it away again afterwards, or rotate the root, "
        "which needs no old key"));
  }
  absl::StatusOr<x509::X509Ptr> certificate = CertificateOf(root->record);
  if (!certificate.ok()) {
    return certificate.status();
  }
  absl::StatusOr<x509::PkeyPtr> key = LoadKey(root->record, certificate->get(), keys);
  if (!key.ok()) {
    return key.status();
  }
  return NewCa{*std::move(key), *std::move(certificate), root->record};
}

}  // namespace

struct CaRotation::Step {
  KeyFiles keys;
  RotationState state;  // in which no rotation of another kind is under way
};

std::string_view NameOf(CaKind kind) {
  return kind == CaKind::kRoot ? "root" : "intermediate";
}

std::string_view NameOf(RotationPhase phase) {
  switch (phase) {
    case RotationPhase::kNone:
      return "none";
    case RotationPhase::kPrepared:
      return "prepared";
    case RotationPhase::kActive:
      return "active";
  }
  return "";
}

const CaFacts* RotationState::Find(CaRole role, CaState state) const {
  for (const CaFacts& ca : cas) {
    if (ca.record.role == role && ca.record.state == state) {
      return &ca;
    }
  }
  return nullptr;
}

absl::StatusOr<RotationState> CaRotation::State() const {
  const absl::StatusOr<KeyFiles> keys = KeyFiles::Open(signer_.options().state_dir);
  if (!keys.ok()) {
    return keys.status();
  }
  return Read(*keys);
}

absl::Status CaRotation::Resume() {
  const absl::StatusOr<KeyFiles> keys = KeyFiles::Open(signer_.options().state_dir);
  return keys.ok() ? Settle(*keys) : keys.status();
}

absl::StatusOr<RotationState> CaRotation::Read(const KeyFiles& keys) const {
  absl::StatusOr<std::vector<CaRecord>> records = store_.ListCas();
  if (!records.ok()) {
    return records.status();
  }
  RotationState state;
  for (CaRecord& record : *records) {
    const absl::StatusOr<x509::X509Ptr> certificate = CertificateOf(record);
    if (!certificate.ok()) {
      return certificate.status();
    }
    const bool key_present = keys.HasKey(KeyFiles::FileName(record.role, record.id));
    state.cas.push_back({std::move(record), x509::NotAfter(certificate->get()), key_present});
  }
  state.phase = PhaseOf(state);
  state.kind = KindOf(state);
  return state;
}

absl::Status CaRotation::Settle(const KeyFiles& keys) {
  const absl::StatusOr<std::vector<CaRecord>> records = store_.ListCas();
  if (!records.ok()) {
    return records.status();
  }
  for (const CaRecord& record : *records) {
    absl::Status status = keys.Adopt(KeyFiles::FileName(record.role, record.id));
    if (!status.ok()) {
      return status;
    }
  }
  if (absl::Status status = keys.Discard(); !status.ok()) {
    return status;
  }
  return signer_.Reload(store_, keys);
}

absl::StatusOr<CaRotation::Step> CaRotation::Begin(CaKind kind) const {
  absl::StatusOr<KeyFiles> keys = KeyFiles::Open(signer_.options().state_dir);
  if (!keys.ok()) {
    return keys.status();
  }
  absl::StatusOr<RotationState> state = Read(*keys);
  if (!state.ok()) {
    return state.status();
  }
  if (absl::Status status = CheckKind(*state, kind); !status.ok()) {
    return status;
  }
  return Step{*std::move(keys), *std::move(state)};
}

absl::Status CaRotation::Make(CaKind kind, const RotationState& state, const KeyFiles& keys) {
  const absl::Time now = clock_.Now();
  const CaOptions& options = signer_.options();
  std::vector<NewCa> made;
  absl::StatusOr<NewCa> root = kind == CaKind::kRoot
                                   ? MakeCa(options, CaRole::kRoot, CaState::kNext, nullptr, now)
                                   : OpenRoot(state, keys, now);
  if (!root.ok()) {
    return root.status();
  }
  absl::StatusOr<NewCa> intermediate =
      MakeCa(options, CaRole::kIntermediate, CaState::kNext, &*root, now);
  if (!intermediate.ok()) {
    return intermediate.status();
  }
  if (kind == CaKind::kRoot) {
    made.push_back(*std::move(root));
  }
  made.push_back(*std::move(intermediate));
  return StoreNewCas(made, keys, store_);
}

absl::Status CaRotation::Prepare(CaKind kind) {
  const absl::StatusOr<Step> step = Begin(kind);
  if (!step.ok()) {
    return step.status();
  }
  const auto& [keys, state] = *step;
  if (state.phase == RotationPhase::kActive) {
    return absl::FailedPreconditionError(base::StrCat(
        "the old ", NameOf(kind), " has not been retired yet: retire it before the next rotation"));
  }
  if (state.phase == RotationPhase::kNone) {
    if (absl::Status status = Make(kind, state, keys); !status.ok()) {
      return status;
    }
    spdlog::info("ca rotation kind={} step=prepare", NameOf(kind));
  }
  return Settle(keys);
}

absl::Status CaRotation::TryNext(const RotationState& state, const KeyFiles& keys) const {
  const auto withdrawn = store_.ListWithdrawnCas();
  if (!withdrawn.ok()) {
    return withdrawn.status();
  }
  return LoadCaView(AfterActivation(state), *withdrawn, signer_.trust_domain(), keys).status();
}

absl::Status CaRotation::Activate(CaKind kind) {
  const absl::StatusOr<Step> step = Begin(kind);
  if (!step.ok()) {
    return step.status();
  }
  const auto& [keys, state] = *step;
  if (state.phase == RotationPhase::kNone) {
    return absl::FailedPreconditionError(
        base::StrCat("no ", NameOf(kind), " is prepared: prepare it first"));
  }
  if (state.phase == RotationPhase::kPrepared) {
    absl::Status status = TryNext(state, keys);
    if (status.ok()) {
      status = store_.ActivateNextCas();
    }
    if (!status.ok()) {
      return status;
    }
    spdlog::info("ca rotation kind={} step=activate", NameOf(kind));
  }
  return Settle(keys);
}

absl::Status CaRotation::SetKeysAside(CaState state, const RotationState& facts,
                                      const KeyFiles& keys) const {
  absl::Status status;
  for (const CaFacts& ca : facts.cas) {
    if (ca.record.state == state) {
      status.Update(keys.SetAside(KeyFiles::FileName(ca.record.role, ca.record.id)));
    }
  }
  return status;
}

absl::Status CaRotation::Retire(CaKind kind, bool in_order) {
  const absl::StatusOr<Step> step = Begin(kind);
  if (!step.ok()) {
    return step.status();
  }
  const auto& [keys, state] = *step;
  if (state.phase == RotationPhase::kPrepared) {
    return absl::FailedPreconditionError(
        base::StrCat("the next ", NameOf(kind), " does not sign yet: activate it first, or abort"));
  }
  absl::Status status;
  if (state.phase == RotationPhase::kActive) {
    status = SetKeysAside(CaState::kRetired, state, keys);
    if (status.ok()) {
      status = store_.WithdrawRetiredCas(clock_.Now(), in_order);
    }
    spdlog::log(status.ok() ? spdlog::level::info : spdlog::level::err,
                "ca rotation kind={} step=retire in_order={}: {}", NameOf(kind), in_order,
                status.ok() ? "done" : base::Message(status));
  }
  const absl::Status settled = Settle(keys);  // also gives a key its name back
  return status.ok() ? settled : status;
}

absl::Status CaRotation::Abort(CaKind kind) {
  const absl::StatusOr<Step> step = Begin(kind);
  if (!step.ok()) {
    return step.status();
  }
  const auto& [keys, state] = *step;
  if (state.phase == RotationPhase::kActive) {
    return absl::FailedPreconditionError(base::StrCat(
        "the new ", NameOf(kind),
        " signs already, so it cannot be dropped: retire the old one, then rotate again"));
  }
  absl::Status status;
  if (state.phase == RotationPhase::kPrepared) {
    status = SetKeysAside(CaState::kNext, state, keys);
    if (status.ok()) {
      status = store_.DropNextCas();
    }
    spdlog::log(status.ok() ? spdlog::level::info : spdlog::level::err,
                "ca rotation kind={} step=abort: {}", NameOf(kind),
                status.ok() ? "done" : base::Message(status));
  }
  const absl::Status settled = Settle(keys);
  return status.ok() ? settled : status;
}

}  // namespace postern::ca
