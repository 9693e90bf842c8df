// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/trust_bundle.h"

namespace postern::x509 {

// Verifies that a CA of the bundle's trust domain signed `statement`: ECDSA or RSA (PKCS #1) with
// SHA-256, or Ed25519, by the first certificate of `signer_chain`, which the rest leads to one of
// the bundle's roots at `now`. Every certificate of the path must be a CA that may sign
// certificates, and strong. Gives the SHA-256 of each, the signer first, the root last.
// Unauthenticated: why not. Pure.
absl::StatusOr<std::vector<base::Sha256Digest>> VerifyCaStatement(
    base::ByteSpan statement, base::ByteSpan signature, const std::vector<X509Ptr>& signer_chain,
    const TrustBundle& bundle, absl::Time now);

}  // namespace postern::x509
