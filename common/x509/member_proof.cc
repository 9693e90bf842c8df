// SPDX-License-Identifier: Apache-2.0
#include "common/x509/member_proof.h"

#include "common/base/strings.h"
#include "common/x509/digest.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

using MdCtxPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;

// With its zero byte, which no other statement of ours begins with.
constexpr std::string_view kContext("postern-member-v1\0", 18);

}  // namespace

absl::StatusOr<std::string> BytesOf(const MemberStatement& statement) {
  if (statement.challenge.size() != kChallengeBytes) {
    return absl::InvalidArgumentError(base::StrCat(
        "a challenge has ", kChallengeBytes, " bytes, this one has ", statement.challenge.size()));
  }
  const base::Sha256Digest csr_key = Sha256(statement.csr_public_key);
  return base::StrCat(kContext, statement.challenge, base::AsText(csr_key), statement.issuer.uri());
}

absl::StatusOr<std::string> SignMemberStatement(EVP_PKEY* key, const MemberStatement& statement) {
  const ErrorQueueGuard guard;
  const absl::StatusOr<std::string> bytes = BytesOf(statement);
  if (!bytes.ok()) {
    return bytes.status();
  }
  const base::ByteSpan text = base::AsBytes(*bytes);
  const MdCtxPtr context(EVP_MD_CTX_new());
  std::string signature(kMaxMemberSignatureBytes, '\0');
  size_t size = signature.size();
  if (context == nullptr ||
      EVP_DigestSignInit(context.get(), nullptr, SignatureDigest(key), nullptr, key) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     text.data(), text.size()) != 1) {
    return OpensslFailure("cannot sign the issuer's challenge");
  }
  signature.resize(size);
  return signature;
}

absl::Status VerifyMemberStatement(EVP_PKEY* key, const MemberStatement& statement,
                                   base::ByteSpan signature) {
  const ErrorQueueGuard guard;
  const absl::StatusOr<std::string> bytes = BytesOf(statement);
  if (!bytes.ok()) {
    return bytes.status();
  }
  const base::ByteSpan text = base::AsBytes(*bytes);
  const MdCtxPtr context(EVP_MD_CTX_new());
  if (signature.size() > kMaxMemberSignatureBytes || context == nullptr ||
      EVP_DigestVerifyInit(context.get(), nullptr, SignatureDigest(key), nullptr, key) != 1 ||
      EVP_DigestVerify(context.get(), signature.data(), signature.size(), text.data(),
                       text.size()) != 1) {
    return absl::UnauthenticatedError(
        "the signature is not of this key, over this challenge, this request's key and this "
        "issuer");
  }
  return absl::OkStatus();
}

}  // namespace postern::x509
