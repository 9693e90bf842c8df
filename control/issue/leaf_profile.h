// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"
#include "control/ca/ca_signer.h"

namespace postern::issue {

// The one encoding (DER of TBSCertificate, RFC 5280 section 4.1) that a leaf with these facts may
// have: version 3, the serial, the algorithm of the signer's key, the signer's name, the validity,
// an empty subject, the key, and the six extensions of our profile with nothing beside them.
// Written without the code that signs, so that the two check each other. Internal: the key or the
// signer cannot be encoded.
absl::StatusOr<std::string> ExpectedTbs(const ca::SignedSvid& made, const ca::SvidTemplate& wanted);

// The parts of a certificate that is signed as a key of `signer`'s type does: ecdsa-with-SHA256,
// sha256WithRSAEncryption or Ed25519; views into it. Both empty: it has another form.
struct SignedParts {
  std::string_view tbs;
  std::string_view signature;
};
SignedParts SplitCertificate(std::string_view der, const EVP_PKEY* signer);

}  // namespace postern::issue
