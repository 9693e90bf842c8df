// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/revocation_set.h"
#include "control/ca/ca_signer.h"
#include "control/store/store.h"

namespace postern::issue {

inline constexpr size_t kMaxReason = 256;  // bytes
// For how long after its end a certificate can still be shown for a renewal (Registry::CleanUp: so
// long the log knows it), and therefore its revocation has to be known.
inline constexpr absl::Duration kRememberRevoked = absl::Hours(24 * 7);

// What is revoked, as the issuer holds it: the operator's verbs, checked and stored, and the
// present set for every decision. Thread-safe; all but current() and list() block on the store.
// Whoever changes it tells the mesh (service::RevocationPublisher).
class Revocations {
 public:
  // Reads the list. `ca`, `store` and `clock` outlive it. The store's errors pass through.
  static absl::StatusOr<std::unique_ptr<Revocations>> Create(const ca::CaSigner& ca,
                                                             store::Store& store,
                                                             const base::Clock& clock);

  struct Made {
    x509::Revocation revocation;
    uint64_t certificates = 0;  // unexpired ones of the log that it names
  };
  // `wanted`: by, subject (in any form) and reason. InvalidArgument: a subject that is none, no
  // reason or too long a one, the issuer's own identity. FailedPrecondition: the CA that signs now,
  // or one above it: everything of the trust domain would be refused at once, this list included;
  // rotate first.
  absl::StatusOr<Made> Revoke(x509::Revocation wanted);

  // NotFound: see store::RevocationStore::Lift.
  absl::StatusOr<std::vector<x509::Revocation>> Lift(uint64_t sequence);

  // Reads the list again: after something else changed it (an entry was deleted). On error the
  // present one stays.
  absl::Status Reload();

  // Forgets what names no living certificate. For a timer, about once a minute. OK(true): something
  // was.
  absl::StatusOr<bool> CleanUp();

  std::shared_ptr<const x509::RevocationSet> current() const;
  std::shared_ptr<const store::RevocationList> list() const;

 private:
  Revocations(const ca::CaSigner& ca, store::Store& store, const base::Clock& clock)
      : ca_(ca), store_(store), clock_(clock) {}
  absl::Status CheckSubject(const x509::Revocation& wanted) const;
  absl::Time EndOf(const x509::Revocation& wanted, const store::NamedCertificates& named) const;

  const ca::CaSigner& ca_;
  store::Store& store_;
  const base::Clock& clock_;
  std::mutex reload_mutex_;   // taken before mutex_: a slow reload never overtakes a newer one
  mutable std::mutex mutex_;  // guards the next two
  std::shared_ptr<const x509::RevocationSet> set_ = std::make_shared<const x509::RevocationSet>();
  std::shared_ptr<const store::RevocationList> list_ =
      std::make_shared<const store::RevocationList>();
};

}  // namespace postern::issue
