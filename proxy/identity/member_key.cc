// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/member_key.h"

#include <openssl/crypto.h>

#include "absl/cleanup/cleanup.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/key.h"
#include "common/x509/member_key.h"
#include "common/x509/member_proof.h"
#include "postern/v1/identity.pb.h"

namespace postern::identity {
namespace {

constexpr size_t kLargestFile = 16U << 10U;

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return {status.code(), base::ToAbsl(base::StrCat("'", base::Printable(path, 512),
                                                   "': ", base::Message(status)))};
}

}  // namespace

absl::StatusOr<MemberKey> MemberKey::Load(const std::string& path) {
  auto pem = base::ReadSecretFile(path, /*allow_symlink=*/true, kLargestFile);
  if (!pem.ok()) {
    return pem.status();
  }
  const absl::Cleanup wipe = [&pem] { OPENSSL_cleanse(pem->data(), pem->size()); };
  auto key = x509::PrivateKeyFromPem(*pem);
  if (!key.ok()) {
    return InFile(path, key.status());
  }
  auto public_key_der = x509::MemberKeyToDer(key->get());
  if (!public_key_der.ok()) {
    return InFile(path, public_key_der.status());
  }
  return MemberKey(*std::move(key), *std::move(public_key_der));
}

absl::Status MemberKey::Answer(const v1::ChallengeResponse& challenge, const x509::SpiffeId& issuer,
                               base::ByteSpan csr_public_key, v1::CertifyRequest& request) const {
  if (challenge.issuer_spiffe_id() != issuer.uri()) {
    return absl::FailedPreconditionError(
        base::StrCat("the issuer calls itself ", base::Printable(challenge.issuer_spiffe_id()),
                     ", and its certificate ", issuer.uri(), ": its challenge is not answered"));
  }
  auto signature =
      x509::SignMemberStatement(key_.get(), {challenge.challenge(), csr_public_key, issuer});
  if (!signature.ok()) {
    return absl::IsInvalidArgument(signature.status())
               ? absl::FailedPreconditionError(base::ToAbsl(base::StrCat(
                     "the issuer sent no challenge: ", base::Message(signature.status()))))
               : signature.status();
  }
  v1::CertifyRequest::EnrolledKey& evidence = *request.mutable_enrolled_key();
  evidence.set_public_key_der(public_key_der_);
  evidence.set_challenge(challenge.challenge());
  evidence.set_signature(*std::move(signature));
  return absl::OkStatus();
}

}  // namespace postern::identity
