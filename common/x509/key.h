// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"

namespace postern::x509 {

// A fresh ECDSA P-256 key. Internal when OpenSSL cannot make one.
absl::StatusOr<PkeyPtr> GenerateP256Key();

// A private key from PEM: PKCS#8, SEC1 or PKCS#1, unencrypted. InvalidArgument otherwise; the
// message never holds key bytes. The PEM text stays the caller's to wipe (OPENSSL_cleanse).
absl::StatusOr<PkeyPtr> PrivateKeyFromPem(std::string_view pem);

// PKCS#8 PEM, unencrypted: for the state directory and nothing else.
absl::StatusOr<std::string> PrivateKeyToPem(EVP_PKEY* key);

// Whether a public key is strong enough to take part: P-256, P-384, Ed25519, or RSA of 2048 to 8192
// bits. InvalidArgument names what it is instead.
absl::Status CheckKeyStrength(EVP_PKEY* key);

// The digest that a signature of `key`'s kind takes: SHA-256; null for Ed25519, which has its own
// (RFC 8032). A private key in a token may not tell its kind: ask with the public one.
const EVP_MD* SignatureDigest(const EVP_PKEY* key);

}  // namespace postern::x509
