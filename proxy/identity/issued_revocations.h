// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/revocation_set.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/identity/snapshot.h"

namespace postern::v1 {
class SignedRevocations;
}  // namespace postern::v1

namespace postern::identity {

// The list of revocations as the issuer sent it last: judged like anyone else's input, and never
// replaced by an older one. Main loop only.
class IssuedRevocations {
 public:
  // A list from the stream: signed by a CA of the trust domain of `bundle`, for that trust domain,
  // whole, and no older than what is held. True: it is in use from now on; false: it is held
  // already. FailedPrecondition: an older one. Unauthenticated: the signature. InvalidArgument:
  // what it says.
  absl::StatusOr<bool> Take(const v1::SignedRevocations& wire, const x509::TrustBundle& bundle,
                            absl::Time now);

  // The list that an earlier process took, from the state directory. It was verified then, and the
  // CA that signed it may have been replaced since: it counts as it is. `trust_domain`: the own one
  // as far as known. `same_issuer`: whether its version says anything about those that will come.
  absl::Status Restore(const v1::SignedRevocations& wire,
                       const std::optional<x509::TrustDomain>& trust_domain, bool same_issuer);

  // Of what is held; nullopt: any version will do.
  const std::optional<Version>& version() const { return version_; }
  // Null before the first list.
  const std::shared_ptr<const x509::RevocationSet>& set() const { return set_; }

  // Why our own certificate is not accepted by others any more; empty: it is.
  std::string WhyOwnIsRevoked(const x509::Svid& svid) const;

 private:
  std::optional<Version> version_;
  std::shared_ptr<const x509::RevocationSet> set_;
};

}  // namespace postern::identity
