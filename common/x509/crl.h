// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/openssl_ptr.h"

namespace postern::x509 {

// What a CRL (RFC 5280 section 5) says, after its signature was verified. Immutable.
struct Crl {
  std::string source;       // the file that it came from, for messages
  std::string issuer;       // the CA's subject, printable
  HalfDigest issuer_key{};  // of the CA's SubjectPublicKeyInfo, DER
  absl::Time this_update = absl::InfinitePast();
  absl::Time next_update = absl::InfiniteFuture();  // InfiniteFuture: it names none
  absl::flat_hash_set<HalfDigest> revoked = {};     // LinkDigest of each
};

// The unverified content of one file: its CRLs, and the CA certificates that lie beside them, by
// which those of CAs that no bundle holds can be verified.
struct CrlContent {
  std::vector<X509CrlPtr> crls;
  std::vector<X509Ptr> authorities;
};

inline constexpr size_t kMaxCrlBytes = 64U << 20U;

// PEM ("X509 CRL" and "CERTIFICATE" blocks, any number of both) or one DER CRL, told apart by the
// first byte. InvalidArgument: neither, damaged, or no CRL and no certificate at all.
absl::StatusOr<CrlContent> ParseCrlFile(std::string_view content);

// Verifies `crl` by the one of `authorities` that issued it: same name, and the signature holds.
// InvalidArgument: no such CA among them; a CA that may not sign CRLs; a weak signature; a delta or
// partial CRL, or one with another critical extension, which must not be used by whoever does not
// understand it (RFC 5280 section 5.2).
absl::StatusOr<std::shared_ptr<const Crl>> VerifyCrl(X509_CRL* crl, std::string_view source,
                                                     const std::vector<X509Ptr>& authorities);

}  // namespace postern::x509
