// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/base/bytes.h"

namespace postern::tls {

// The signature of a client's CertificateVerify (RFC 8446 sections 4.2.3 and 4.4.3). All pure.

// What a CertificateRequest of ours names, the best first: the signatures that tls_context.cc has
// for handshakes, and PKCS#1 for those inside certificates.
std::span<const uint16_t> AcceptedSchemes();

// The first of `offered` (two bytes each) that this key can sign with; 0: none.
uint16_t ChooseScheme(EVP_PKEY* key, base::ByteSpan offered);

// Over a transcript's hash, in the client's name. nullopt: the scheme is not for this key, or
// OpenSSL refused.
std::optional<std::vector<uint8_t>> SignAsClient(EVP_PKEY* key, uint16_t scheme,
                                                 base::ByteSpan transcript_hash);

// Whether one of AcceptedSchemes may be used with this key, by its type and curve.
bool SchemeFits(EVP_PKEY* key, uint16_t scheme);
bool VerifyClient(EVP_PKEY* key, uint16_t scheme, base::ByteSpan transcript_hash,
                  base::ByteSpan signature);

}  // namespace postern::tls
