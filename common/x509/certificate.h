// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"

namespace postern::x509 {

// Facts of a parsed certificate, and conversions. None of these checks validity.
absl::StatusOr<X509Ptr> CertificateFromDer(base::ByteSpan der);  // trailing bytes are refused
std::string CertificateToDer(const X509* certificate);
std::string CertificateToPem(const X509* certificate);

// All CERTIFICATE blocks of a PEM text, in order; CRLF, blank lines, comments and other blocks
// between are passed over. InvalidArgument: none at all, or one that does not parse (its number is
// named).
absl::StatusOr<std::vector<X509Ptr>> CertificatesFromPem(std::string_view pem);
std::string CertificatesToPem(const std::vector<X509Ptr>& certificates);

absl::Time NotBefore(const X509* certificate);
absl::Time NotAfter(const X509* certificate);
std::string SerialHex(const X509* certificate);
std::string SerialHex(const ASN1_INTEGER* serial);
std::string SubjectText(const X509* certificate);  // RFC 2253, printable
base::Sha256Digest Sha256OfCertificate(const X509* certificate);
base::Sha256Digest Sha256OfKey(const X509* certificate);  // over its SubjectPublicKeyInfo, DER
bool IsCa(const X509* certificate);

// The URI SANs, as many as there are, octets as they stand.
std::vector<std::string> UriSans(const X509* certificate);

// The identity of a leaf: its only URI SAN, which must be a workload's SPIFFE ID. InvalidArgument:
// none, several, or not in the grammar (X509-SVID section 2).
absl::StatusOr<SpiffeId> LeafSpiffeId(const X509* certificate);

}  // namespace postern::x509
