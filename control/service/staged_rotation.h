// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/root_life.h"
#include "control/ca/ca_rotation.h"
#include "control/mesh/mesh_state.h"
#include "control/store/store.h"

namespace postern::service {

enum class RotationStep : uint8_t { kPrepare, kActivate, kRetire, kAbort };

// How a rotation stands, for the operator.
struct RotationReport {
  ca::RotationState state;
  store::Version bundle_version;
  // Connected proxies that have not acknowledged it, "SPIFFE-ID address", with their last refusal.
  std::vector<std::string> not_followed;
  // When the last certificate of the retired CA ends (with the grace for renewing it) that its
  // owner has not renewed; the epoch: there is none.
  absl::Time old_certificates_until = absl::UnixEpoch();
  std::string blocked;  // why the automatic rotation does not go on; empty: it does, or is not due
  std::vector<std::string> warnings;  // roots past half of their life, and what comes next
};

// How a rotation stands, for the scrape.
struct RotationGauges {
  ca::RotationState state;
  uint64_t not_followed = 0;
  bool blocked = false;
  uint64_t roots_past_half_life = 0;
};

// When a step of a rotation may be made: the CA's side is CaRotation, who has followed is the mesh
// state's to know, and what the old CA signed the certificate log's. Activation and retirement wait
// for every connected proxy to have acknowledged the present bundle, retirement also for the last
// certificate of the old CA to have expired or been renewed; "renewed" means that its owner has
// shown the new one. Made by the issuer's process. Thread-safe; every call blocks on the store.
class StagedRotation {
 public:
  // Past this part of a CA's life the rotation goes on by itself; past the other without those that
  // have not followed: for them alone to fail is better than for all.
  static constexpr double kDueAfter = 2.0 / 3.0;
  static constexpr double kLateAfter = 0.9;

  struct Parts {                         // all outlive this
    ca::CaRotation* rotation = nullptr;  // null where `plugged` is true
    ca::CaSigner* signer = nullptr;
    store::CertificateLog* certificates = nullptr;
    mesh::MeshState* mesh = nullptr;
    const base::Clock* clock = nullptr;
    // The CA or the bundle may have changed; called without a lock held.
    std::function<void()> on_change;
    bool automatic = true;
    // For how long after its end a certificate of that life may still be renewed; null: not at all.
    std::function<absl::Duration(absl::Duration life)> renewal_grace = {};
    // The CA comes from outside: there is nothing here to rotate.
    bool plugged = false;
  };
  explicit StagedRotation(Parts parts) : parts_(std::move(parts)) {}

  // Makes one step, safe to repeat. `force`: though proxies have not followed or certificates of
  // the old CA are in use; a root that is retired so ends the connections that stand on it.
  // FailedPrecondition says what the step waits for. Other errors: CaRotation's.
  absl::Status Step(ca::CaKind kind, RotationStep step, bool force);

  absl::StatusOr<RotationReport> Report() const;
  absl::StatusOr<RotationGauges> Gauges() const;

  // How many connected proxies have not acknowledged the present bundle; not none while it could
  // not be published.
  size_t Behind() const;

  // The automatic rotation's next step, if it is due and may be made, and a line in the log for a
  // root that has outlived half of its life; about once a second.
  void Tick();

  // At the start, when the intermediate has expired: if it may and can, rotates at once, for an
  // issuer that cannot sign cannot be waited for. Returns what hindered it.
  absl::Status RecoverExpired();

 private:
  absl::StatusOr<ca::RotationState> State() const;
  absl::Status Make(ca::CaKind kind, RotationStep step, bool force);
  absl::Status CheckTold() const;
  absl::Status CheckFollowed() const;
  absl::Status CheckUnused(const ca::RotationState& state) const;
  std::vector<std::string> NotFollowed() const;
  absl::StatusOr<absl::Time> OldCertificatesUntil(const ca::RotationState& state) const;
  absl::Duration GraceOf(absl::Duration life) const;
  bool IsPast(double part, const ca::CaFacts& ca) const;
  const ca::CaFacts* FindPast(double part, const ca::RotationState& state, store::CaState of) const;
  absl::Status Drive();
  absl::Status DrivePrepared(const ca::RotationState& state);
  absl::Status DriveActive(const ca::RotationState& state);
  absl::Status DriveIdle(const ca::RotationState& state);
  void NoteBlocked(const absl::Status& status);
  void RemindOfRoots();
  std::string NextRootComes(const ca::RotationState& state) const;

  const Parts parts_;
  std::mutex step_mutex_;  // one step at a time, with its checks

  // Tick's alone:
  absl::Duration look_at_ = -absl::InfiniteDuration();
  bool all_followed_ = false;  // when it looked last
  absl::Duration complained_at_ = -absl::InfiniteDuration();
  absl::Duration reminded_at_ = -absl::InfiniteDuration();
  x509::RootReminder reminder_;

  mutable std::mutex mutex_;  // guards the next two
  std::string blocked_;
  bool unsettled_ = false;  // a step was made by halves: Tick finishes it
};

}  // namespace postern::service
