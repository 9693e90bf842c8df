// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"

// Public keys to and from SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7). OpenSSL 3.0 looks for a
// decoder or encoder anew each time, which costs more than verifying a signature; P-256 in its
// usual form (RFC 5480, named curve, uncompressed point) goes past that. Any thread.
namespace postern::x509 {

// DER, byte for byte what i2d_PUBKEY gives. Internal: OpenSSL.
absl::StatusOr<std::string> PublicKeyToDer(EVP_PKEY* key);

// A P-256 key in its usual form, its point checked to lie on the curve; null: anything else.
PkeyPtr UsualP256FromDer(base::ByteSpan spki);

// The octets of an uncompressed P-256 point; empty: the key is of another kind or form.
std::string UsualP256Point(EVP_PKEY* key);

}  // namespace postern::x509
