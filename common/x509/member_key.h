// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"

// The keys by which an entry names a workload: Ed25519, or P-256 on its named curve. Each has one
// encoding here and no other, so that the hash over it is a name. Any thread.
namespace postern::x509 {

// The selector of a member's key, followed by the 64 lower-case digits of its SHA-256.
inline constexpr std::string_view kMemberKeySelector = "key:sha256:";

enum class MemberKeyType : uint8_t { kEd25519, kP256 };

// A fresh key. Internal when OpenSSL cannot make one.
absl::StatusOr<PkeyPtr> GenerateMemberKey(MemberKeyType type);

// The public half of a key (which may be a private one) as SubjectPublicKeyInfo, DER. A P-256 point
// that `key` holds compressed is written uncompressed, and `key` keeps that form.
// InvalidArgument: another kind of key.
absl::StatusOr<std::string> MemberKeyToDer(EVP_PKEY* key);

// The public half as a PUBLIC KEY block. Errors as MemberKeyToDer.
absl::StatusOr<std::string> MemberKeyToPem(EVP_PKEY* key);

// The reverse of MemberKeyToDer, from an unknown sender: cheap, and exact. InvalidArgument:
// anything that MemberKeyToDer does not write, an RSA key among them.
absl::StatusOr<PkeyPtr> MemberKeyFromDer(base::ByteSpan spki);

// From what an operator has: one PUBLIC KEY block, or certificates, of which the first counts.
// InvalidArgument: neither, both, several keys, another kind of key, or a private key, which is the
// member's alone.
absl::StatusOr<std::string> MemberKeyDerFromPem(std::string_view pem);

// "key:sha256:HEX" of a SubjectPublicKeyInfo.
std::string MemberKeySelector(base::ByteSpan spki);

}  // namespace postern::x509
