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

// Judges what was just signed, from its DER: exactly the wanted identity and key, the whole leaf
// profile, a positive serial of at most 20 octets, no longer than asked and than its chain up to
// the root, one signature by its signer's key, and valid at `now`. Internal names the rule that it
// breaks.
//
// CheckSigned compares the encoding with the only one that is right (ExpectedTbs) and verifies one
// signature; the signer's own chain must have been judged before, by CheckSignedAsPeer of any leaf
// of this signer and these bundles.
absl::Status CheckSigned(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                         absl::Time now);

// The same rules as a peer applies them: parsed by OpenSSL, and verified up to a root of `bundles`.
absl::Status CheckSignedAsPeer(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                               const x509::TrustBundleSet& bundles, absl::Time now);

// What the certificate log keeps of it.
absl::StatusOr<store::IssuedCertificate> RecordOf(const ca::SignedSvid& made,
                                                  const ca::SvidTemplate& wanted,
                                                  const std::string& entry_id,
                                                  absl::Time issued_at);

}  // namespace postern::issue
