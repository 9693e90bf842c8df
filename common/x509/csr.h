// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"

namespace postern::x509 {

inline constexpr size_t kMaxCsrBytes = 16U << 10U;

// A PKCS#10 request for `key`, DER, with an empty subject and, if given, `id` as its only URI SAN.
absl::StatusOr<std::string> CreateCsr(EVP_PKEY* key, const std::optional<SpiffeId>& id);

// What a received request is good for: the proven public key, and the identity that it names if it
// names one. Everything else in it is ignored.
struct VerifiedCsr {
  PkeyPtr public_key;
  std::optional<std::string> uri;  // the only URI SAN, unvalidated octets
};

// InvalidArgument: too large, does not parse, trailing bytes, bad self-signature, weak key, asks
// for CA:TRUE, or names several URIs.
absl::StatusOr<VerifiedCsr> VerifyCsr(base::ByteSpan der);

}  // namespace postern::x509
