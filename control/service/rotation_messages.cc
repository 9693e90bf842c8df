// SPDX-License-Identifier: Apache-2.0
#include "control/service/rotation_messages.h"

#include <string>

#include "control/service/messages.h"

namespace postern::service {
absl::StatusOr<ca::CaKind> FromMessage(v1::CaKind kind) {
  switch (kind) {
    case v1::CA_KIND_ROOT:
      return ca::CaKind::kRoot;
    case v1::CA_KIND_INTERMEDIATE:
      return ca::CaKind::kIntermediate;
    default:
      return absl::InvalidArgumentError("kind: neither root nor intermediate");
  }
}

absl::StatusOr<RotationStep> FromMessage(v1::RotationStep step) {
  switch (step) {
    case v1::ROTATION_STEP_PREPARE:
      return RotationStep::kPrepare;
    case v1::ROTATION_STEP_ACTIVATE:
      return RotationStep::kActivate;
    case v1::ROTATION_STEP_RETIRE:
      return RotationStep::kRetire;
    case v1::ROTATION_STEP_ABORT:
      return RotationStep::kAbort;
    default:
      return absl::InvalidArgumentError("step: unknown");
  }
}

v1::CaStatus ToMessage(const RotationReport& report) {
  v1::CaStatus message;
  message.set_phase(std::string(ca::NameOf(report.state.phase)));
  if (report.state.phase != ca::RotationPhase::kNone) {
    message.set_kind(report.state.kind == ca::CaKind::kRoot ? v1::CA_KIND_ROOT
                                                            : v1::CA_KIND_INTERMEDIATE);
  }
  *message.mutable_bundle_version() = ToMessage(report.bundle_version);
  message.mutable_not_followed()->Assign(report.not_followed.begin(), report.not_followed.end());
  message.set_old_certificates_until(absl::ToUnixSeconds(report.old_certificates_until));
  message.set_blocked(report.blocked);
  message.mutable_warnings()->Assign(report.warnings.begin(), report.warnings.end());
  for (const ca::CaFacts& facts : report.state.cas) {
    v1::CaStatus::Ca& ca = *message.add_cas();
    ca.set_id(facts.record.id);
    ca.set_role(std::string(store::NameOf(facts.record.role)));
    ca.set_state(std::string(store::NameOf(facts.record.state)));
    ca.set_certificate_der(facts.record.certificate_der);
    ca.set_key_present(facts.key_present);
  }
  return message;
}

}  // namespace postern::service
