// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"

namespace postern::x509 {

// The names of a subjectAltName extension, as far as Postern looks at them.
struct SubjectAltNames {
  std::vector<std::string> uris;  // octets as they stand, NUL included
  size_t count = 0;               // of all kinds
};

// Reads the subjectAltName of a certificate's or a request's extensions; without one the result is
// empty. InvalidArgument: twice, malformed, or bytes behind the list (OpenSSL accepts those).
absl::StatusOr<SubjectAltNames> ReadSubjectAltNames(const STACK_OF(X509_EXTENSION) * extensions);

// RFC 5280 section 4.2.1.3 and 4.2.1.12. `key_usage` holds KU_ bits and `extended` XKU_ bits,
// nullopt where the extension is missing.
struct CertificateUsage {
  std::optional<uint32_t> key_usage;
  std::optional<uint32_t> extended;
};
CertificateUsage ReadUsage(const X509* certificate);

// Whether a CA's key usage lets it sign certificates; true where it has none.
bool MaySignCertificates(const X509* certificate);

// InvalidArgument: the certificate has an extension that is malformed or stands twice, or it is
// signed with a digest of less than 112 bits of strength (MD5, SHA-1).
absl::Status CheckEncoding(const X509* certificate);
absl::Status CheckSignatureStrength(const X509* certificate);

}  // namespace postern::x509
