// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/trust_bundle.h"
#include "control/ca/ca_signer.h"
#include "control/store/types.h"

namespace postern::issue {

// Judges what was just signed as a peer would, from its DER: exactly the wanted identity and key,
// the whole leaf profile, a positive serial of at most 20 octets, no longer than asked and than its
// chain, and verifiable against our own bundle at `now`. Internal names the rule that it breaks.
absl::Status CheckSigned(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                         const x509::TrustBundleSet& bundles, absl::Time now);

// What the certificate log keeps of it.
absl::StatusOr<store::IssuedCertificate> RecordOf(const ca::SignedSvid& made,
                                                  const ca::SvidTemplate& wanted,
                                                  const std::string& entry_id,
                                                  absl::Time issued_at);

}  // namespace postern::issue
