// SPDX-License-Identifier: Apache-2.0
#include "common/x509/digest.h"

#include <openssl/sha.h>

namespace postern::x509 {

base::Sha256Digest Sha256(base::ByteSpan bytes) {
  base::Sha256Digest digest{};
  SHA256(bytes.data(), bytes.size(), digest.data());
  return digest;
}

}  // namespace postern::x509
