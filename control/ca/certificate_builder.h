// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "control/ca/ca_signer.h"

// The three profiles of certificates that a CA of ours signs. Internal to control/ca. All are X.509
// v3, with a random serial, and never byte for byte from a request. The signature is ECDSA or RSA
// (PKCS#1) with SHA-256, or Ed25519: as the signing key is.
namespace postern::ca {

// The key that signs and the certificate that it belongs to; `certificate` null: self-signed.
struct Issuing {
  X509* certificate = nullptr;
  EVP_PKEY* key = nullptr;
};

struct Validity {
  absl::Time not_before;
  absl::Time not_after;
};

// SHA-256 of the SubjectPublicKeyInfo.
absl::StatusOr<base::Sha256Digest> KeySha256(EVP_PKEY* key);

// A signature over `data`. `digest`: what x509::SignatureDigest says of the key. Internal: OpenSSL.
absl::StatusOr<std::string> Sign(EVP_PKEY* key, const EVP_MD* digest, base::ByteSpan data);

// A CA: CA:TRUE with `path_length`, keyCertSign and cRLSign (critical), `common_name` below
// O=Postern, the trust domain as URI SAN. Internal: OpenSSL.
absl::StatusOr<x509::X509Ptr> BuildCa(const std::string& common_name, const std::string& uri,
                                      int path_length, EVP_PKEY* public_key,
                                      const SerialBytes& serial, const Validity& validity,
                                      const Issuing& issuing);

// A leaf, DER: the profile that CaSigner::SignX509Svid promises. Internal: OpenSSL.
absl::StatusOr<std::string> BuildLeaf(const std::string& uri, EVP_PKEY* public_key,
                                      const SerialBytes& serial, const Validity& validity,
                                      const Issuing& issuing);

}  // namespace postern::ca
