// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "control/ca/ca_signer.h"
#include "control/issue/revocations.h"
#include "control/mesh/mesh_state.h"
#include "control/store/store.h"

namespace postern::service {

// Brings the list of revocations to the mesh: serialises it, has the CA sign it, and does so again
// when the list or the CA that signs has changed. Owned by the process. Thread-safe; blocks on the
// store.
class RevocationPublisher {
 public:
  // All outlive it.
  RevocationPublisher(const ca::CaSigner& ca, store::Store& store, issue::Revocations& revocations,
                      mesh::MeshState& mesh, const base::Clock& clock)
      : ca_(ca), store_(store), revocations_(revocations), mesh_(mesh), clock_(clock) {}

  // Hands the present list to the mesh unless it has it, signed by the present CA. Cheap when
  // nothing has changed: for every change and for a timer. FailedPrecondition: the CA cannot sign;
  // what was revoked is kept, and refused by the issuer itself, and this is tried again.
  // ResourceExhausted: the list is too long for one message. The store's errors pass through.
  absl::Status Publish();

 private:
  absl::StatusOr<mesh::SignedRevocations> Sign(const store::RevocationList& list);

  const ca::CaSigner& ca_;
  store::Store& store_;
  issue::Revocations& revocations_;
  mesh::MeshState& mesh_;
  const base::Clock& clock_;
  std::mutex mutex_;  // one publication at a time: an older list never overtakes a newer one
  store::Version published_;                       // guarded by mutex_
  std::shared_ptr<const ca::SigningSlot> signer_;  // guarded by mutex_; of published_
};

}  // namespace postern::service
