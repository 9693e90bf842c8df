// SPDX-License-Identifier: Apache-2.0
#include "common/x509/ca_statement.h"

#include <openssl/evp.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <span>
#include <string>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

constexpr int kAuthLevel = 2;

using MdCtxPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;

absl::Status Refused(std::string_view why) {
  return absl::UnauthenticatedError(base::ToAbsl(why));
}

absl::StatusOr<std::vector<base::Sha256Digest>> JudgePath(const STACK_OF(X509) * path) {
  std::vector<base::Sha256Digest> digests;
  for (int i = 0; i < sk_X509_num(path); ++i) {
    X509* const certificate = sk_X509_value(path, i);
    if (!IsCa(certificate) || !MaySignCertificates(certificate)) {
      return Refused(base::StrCat("certificate ", i, " of the signer's chain is no CA"));
    }
    if (absl::Status strong = CheckKeyStrength(X509_get0_pubkey(certificate)); !strong.ok()) {
      return Refused(base::Message(strong));
    }
    digests.push_back(Sha256OfCertificate(certificate));
  }
  return digests;
}

absl::StatusOr<std::vector<base::Sha256Digest>> VerifyPath(const std::vector<X509Ptr>& chain,
                                                           const TrustBundle& bundle,
                                                           absl::Time now) {
  const X509StackPtr untrusted = ShareX509Stack(std::span(chain).subspan(1));
  const X509StoreCtxPtr context(X509_STORE_CTX_new());
  if (untrusted == nullptr || context == nullptr ||
      X509_STORE_CTX_init(context.get(), bundle.store(), chain.front().get(), untrusted.get()) !=
          1) {
    return absl::InternalError("out of memory");
  }
  X509_VERIFY_PARAM* const rules = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
  X509_VERIFY_PARAM_set_purpose(rules, X509_PURPOSE_ANY);
  X509_VERIFY_PARAM_set_depth(rules, kMaxChainDepth - 1);
  X509_VERIFY_PARAM_set_auth_level(rules, kAuthLevel);
  X509_VERIFY_PARAM_set_time(rules, absl::ToTimeT(now));
  if (X509_verify_cert(context.get()) != 1) {
    return Refused(
        base::StrCat("the signer's chain leads to no root of ", bundle.trust_domain().name(), ": ",
                     X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()))));
  }
  return JudgePath(X509_STORE_CTX_get0_chain(context.get()));
}

absl::Status VerifySignature(base::ByteSpan statement, base::ByteSpan signature, X509* signer) {
  EVP_PKEY* const key = X509_get0_pubkey(signer);
  const MdCtxPtr context(EVP_MD_CTX_new());
  if (key == nullptr || context == nullptr) {
    return Refused("the signer's key cannot be used");
  }
  const EVP_MD* const digest = SignatureDigest(key);
  if (EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key) != 1 ||
      EVP_DigestVerify(context.get(), signature.data(), signature.size(), statement.data(),
                       statement.size()) != 1) {
    return Refused("the signature does not hold");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<base::Sha256Digest>> VerifyCaStatement(
    base::ByteSpan statement, base::ByteSpan signature, const std::vector<X509Ptr>& signer_chain,
    const TrustBundle& bundle, absl::Time now) {
  const ErrorQueueGuard guard;
  if (signer_chain.empty() || signer_chain.size() > static_cast<size_t>(kMaxChainDepth)) {
    return Refused("the signer's chain is missing, or too long");
  }
  absl::StatusOr<std::vector<base::Sha256Digest>> path = VerifyPath(signer_chain, bundle, now);
  if (!path.ok()) {
    return path;
  }
  if (absl::Status holds = VerifySignature(statement, signature, signer_chain.front().get());
      !holds.ok()) {
    return holds;
  }
  return path;
}

}  // namespace postern::x509
