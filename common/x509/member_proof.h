// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"

// How a member proves to an issuer that it holds its key: the one construction that both programs
// share (proto/postern/v1/identity.proto, EnrolledKey). Any thread.
namespace postern::x509 {

inline constexpr size_t kChallengeBytes = 32;
inline constexpr size_t kMaxMemberSignatureBytes = 72;  // ECDSA P-256, DER; Ed25519 has 64

// What is said by the signature: "to this issuer, for this challenge, certify that key". A value
// that borrows all but the issuer.
struct MemberStatement {
  std::string_view challenge;     // the issuer's, kChallengeBytes
  base::ByteSpan csr_public_key;  // SubjectPublicKeyInfo of the CSR, DER (PublicKeyToDer)
  SpiffeId issuer;                // as verified by the member, or as the issuer knows itself
};

// The bytes that are signed: "postern-member-v1", a zero byte, the challenge, SHA-256 over the
// CSR's key, the issuer's SPIFFE ID. All but the last have a fixed length, so that no two
// statements share their bytes. InvalidArgument: a challenge of another length.
absl::StatusOr<std::string> BytesOf(const MemberStatement& statement);

// Ed25519, or ECDSA with SHA-256. `key` is a member's (MemberKeyToDer takes it). InvalidArgument as
// BytesOf; Internal: OpenSSL.
absl::StatusOr<std::string> SignMemberStatement(EVP_PKEY* key, const MemberStatement& statement);

// Unauthenticated: the signature is not this key's over this statement. InvalidArgument as BytesOf.
// `key` comes from MemberKeyFromDer.
absl::Status VerifyMemberStatement(EVP_PKEY* key, const MemberStatement& statement,
                                   base::ByteSpan signature);

}  // namespace postern::x509
