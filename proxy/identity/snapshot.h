// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/identity/ticket_secret.h"

namespace postern::identity {

// (epoch, sequence) of the issuer's store; both 0 for files.
struct Version {
  uint64_t epoch = 0;
  uint64_t sequence = 0;
  auto operator<=>(const Version&) const = default;
};

// Who this proxy is and whom it trusts, at one moment. Immutable; made on the main loop, shared by
// all workers as shared_ptr<const IdentitySnapshot>. Only published when it can be used: the chain
// verified against the bundles, key fitting, valid now.
struct IdentitySnapshot {
  std::shared_ptr<const x509::Svid> svid;
  std::shared_ptr<const x509::TrustBundleSet> bundles;
  Version bundle_version;
  absl::Time obtained;      // when the SVID came
  uint64_t generation = 0;  // counts up with every publication of this process
  std::shared_ptr<const TicketSecret> ticket_secret;  // of this publication; null: no tickets
};

}  // namespace postern::identity
