// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/base/bytes.h"

namespace postern::x509 {

// SHA-256 over `bytes` (FIPS 180-4). Any thread. Sha256OfCertificate and Sha256OfKey in
// common/x509/certificate.h are over the DER of a certificate and of its key.
base::Sha256Digest Sha256(base::ByteSpan bytes);

}  // namespace postern::x509
