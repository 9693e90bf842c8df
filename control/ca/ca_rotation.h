// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "control/ca/ca_signer.h"
#include "control/store/store.h"

namespace postern::ca {

enum class CaKind : uint8_t {
  kRoot,          // a new root and an intermediate below it
  kIntermediate,  // a new intermediate below the root that there is
};

// "root", "intermediate"
std::string_view NameOf(CaKind kind);

enum class RotationPhase : uint8_t {
  kNone,
  kPrepared,  // the next CA is there and its root in the bundle
  kActive,    // it signs; the old one is still trusted
};

// "none", "prepared", "active"
std::string_view NameOf(RotationPhase phase);

struct CaFacts {
  store::CaRecord record;
  absl::Time not_after;
  bool key_present = false;  // in the state directory
};

// How far a rotation is. A value, read from the store: it survives any restart.
struct RotationState {
  RotationPhase phase = RotationPhase::kNone;
  CaKind kind = CaKind::kRoot;  // of the rotation under way
  std::vector<CaFacts> cas;     // roots first, oldest first

  // Null: there is none.
  const CaFacts* Find(store::CaRole role, store::CaState state) const;
};

// The steps of a staged rotation, on store and key files: prepare, activate, retire; or abort
// before the second. One rotation at a time. Each step is safe to repeat (done already: OK), is one
// transaction of the store, and leaves a state from which a restart goes on, wherever it was
// interrupted: a key gets its name after its record is stored, and loses it before its record is
// deleted. Whether it is time for a step (have the proxies followed, is the old CA still in use) is
// the caller's to know. Owned by the issuer's process; `signer`, `store` and `clock` outlive it.
// Thread-safe: a step waits for the one before it.
//
// Errors that each step may give: FailedPrecondition says what has to be done first; the store's
// and the file system's errors pass through, and the step may be tried again.
class CaRotation {
 public:
  CaRotation(CaSigner& signer, store::CaStore& store, const base::Clock& clock)
      : signer_(signer), store_(store), clock_(clock) {}

  // Makes the next CA. FailedPrecondition also: the root's key is needed and not in the state
  // directory, or another rotation is under way.
  absl::Status Prepare(CaKind kind);
  // Signs with it from now on; the old one is retired, and nothing that it signed after this is
  // acknowledged by the store. The next CA's key is tried before anything is changed.
  absl::Status Activate(CaKind kind);
  // Takes the retired CA out of the store and its root out of the bundle, and deletes its keys.
  // `in_order`: nothing that it signed is in use any more, so connections that stand on it go on.
  absl::Status Retire(CaKind kind, bool in_order);
  // Drops the next CA, which has signed nothing.
  absl::Status Abort(CaKind kind);

  absl::StatusOr<RotationState> State() const;

  // Brings keys and signer in line with the store, after a step that failed by halves.
  absl::Status Resume();

 private:
  // What each step begins with.
  struct Step;
  absl::StatusOr<Step> Begin(CaKind kind) const;
  absl::StatusOr<RotationState> Read(const KeyFiles& keys) const;
  absl::Status Make(CaKind kind, const RotationState& state, const KeyFiles& keys);
  absl::Status TryNext(const RotationState& state, const KeyFiles& keys) const;
  // Takes the keys' names away from the CAs of this state, before their records are deleted.
  absl::Status SetKeysAside(store::CaState state, const RotationState& facts,
                            const KeyFiles& keys) const;
  // Brings keys and signer in line with the store; also after a step that failed or was done.
  absl::Status Settle(const KeyFiles& keys);

  CaSigner& signer_;
  store::CaStore& store_;
  const base::Clock& clock_;
};

}  // namespace postern::ca
