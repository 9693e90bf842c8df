// SPDX-License-Identifier: Apache-2.0
#include "common/x509/svid.h"

#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

// More cannot be verified by a peer (kMaxChainDepth, and the root that an issuer may send along).
constexpr size_t kMaxOwnChain = 5;

using MdCtxPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;

absl::Status Wrong(std::string_view problem) {
  return absl::InvalidArgumentError(base::StrCat("unusable X.509-SVID: ", problem));
}

// Signs with the private half and verifies with the leaf's public key: comparing the public halves
// would trust what a key file says of itself.
absl::Status CheckKeyFitsLeaf(X509* leaf, EVP_PKEY* key) {
  EVP_PKEY* const public_key = X509_get0_pubkey(leaf);
  if (public_key == nullptr || EVP_PKEY_eq(public_key, key) != 1) {
    return Wrong("the private key does not belong to the certificate");
  }
  const EVP_MD* digest = SignatureDigest(key);
  const base::ByteSpan text = base::AsBytes("postern key check");
  const MdCtxPtr sign(EVP_MD_CTX_new());
  const MdCtxPtr verify(EVP_MD_CTX_new());
  std::array<uint8_t, 1024> signature{};  // RSA of 8192 bits
  size_t size = signature.size();
  const bool fits =
      sign != nullptr && verify != nullptr &&
      EVP_DigestSignInit(sign.get(), nullptr, digest, nullptr, key) == 1 &&
      EVP_DigestSign(sign.get(), signature.data(), &size, text.data(), text.size()) == 1 &&
      EVP_DigestVerifyInit(verify.get(), nullptr, digest, nullptr, public_key) == 1 &&
      EVP_DigestVerify(verify.get(), signature.data(), size, text.data(), text.size()) == 1;
  return fits ? absl::OkStatus() : Wrong("the private key cannot sign for the certificate");
}

absl::Status CheckLeafUsage(const X509* leaf) {
  if (absl::Status status = CheckEncoding(leaf); !status.ok()) {
    return Wrong(base::Message(status));
  }
  if (IsCa(leaf)) {
    return Wrong("the leaf is a CA certificate");
  }
  const CertificateUsage usage = ReadUsage(leaf);
  const uint32_t bits = usage.key_usage.value_or(0);
  if ((bits & KU_DIGITAL_SIGNATURE) == 0) {
    return Wrong("the leaf lacks the key usage digitalSignature");
  }
  if ((bits & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0) {
    return Wrong("the leaf has the key usage keyCertSign or cRLSign");
  }
  constexpr uint32_t kBoth = XKU_SSL_CLIENT | XKU_SSL_SERVER;
  if ((usage.extended.value_or(0) & kBoth) != kBoth) {
    return Wrong("the leaf needs the extended key usages clientAuth and serverAuth");
  }
  return absl::OkStatus();
}

absl::Status CheckIntermediates(const std::vector<X509Ptr>& chain) {
  for (size_t i = 1; i < chain.size(); ++i) {
    const X509* const ca = chain[i].get();
    if (!IsCa(ca) || !MaySignCertificates(ca)) {
      return Wrong(base::StrCat("certificate ", i + 1, " of the chain (",
                                base::Printable(SubjectText(ca), 128), ") is no CA"));
    }
    if (absl::Status status = CheckKeyStrength(X509_get0_pubkey(ca)); !status.ok()) {
      return Wrong(base::StrCat("certificate ", i + 1, ": ", base::Message(status)));
    }
  }
  const auto issued_leaf = [&chain](const X509Ptr& ca) {
    return X509_check_issued(ca.get(), chain.front().get()) == X509_V_OK &&
           X509_verify(chain.front().get(), X509_get0_pubkey(ca.get())) == 1;
  };
  // Any order, and CAs that were cross-signed, are a peer's business; a chain of another leaf is
  // not.
  if (chain.size() > 1 && std::none_of(chain.begin() + 1, chain.end(), issued_leaf)) {
    return Wrong("none of the intermediates issued the leaf");
  }
  return absl::OkStatus();
}

std::string Rounded(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Seconds(1)));
}

}  // namespace

Svid::Svid(SpiffeId id, std::vector<X509Ptr> chain, PkeyPtr key)
    : id_(std::move(id)),
      chain_(std::move(chain)),
      key_(std::move(key)),
      not_before_(NotBefore(leaf())),
      not_after_(NotAfter(leaf())),
      serial_(SerialHex(leaf())) {
  validities_.reserve(chain_.size());
  for (const X509Ptr& certificate : chain_) {
    const Validity& validity = validities_.emplace_back(
        Validity{NotBefore(certificate.get()), NotAfter(certificate.get())});
    not_after_ = std::min(not_after_, validity.ends);
  }
}

absl::StatusOr<Svid> Svid::Create(std::vector<X509Ptr> chain, PkeyPtr key) {
  const ErrorQueueGuard guard;
  if (chain.empty() || key == nullptr) {
    return Wrong("the certificate or the key is missing");
  }
  if (chain.size() > kMaxOwnChain) {
    return Wrong(
        base::StrCat("the chain has ", chain.size(), " certificates, more than ", kMaxOwnChain));
  }
  absl::StatusOr<SpiffeId> id = LeafSpiffeId(chain.front().get());
  if (!id.ok()) {
    return Wrong(base::Message(id.status()));
  }
  if (absl::Status status = CheckLeafUsage(chain.front().get()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckKeyStrength(key.get()); !status.ok()) {
    return Wrong(base::Message(status));
  }
  if (absl::Status status = CheckKeyFitsLeaf(chain.front().get(), key.get()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckIntermediates(chain); !status.ok()) {
    return status;
  }
  return Svid(*std::move(id), std::move(chain), std::move(key));
}

absl::StatusOr<Svid> Svid::FromPem(std::string_view chain_pem, std::string_view key_pem) {
  absl::StatusOr<std::vector<X509Ptr>> chain = CertificatesFromPem(chain_pem);
  if (!chain.ok()) {
    return chain.status();
  }
  absl::StatusOr<PkeyPtr> key = PrivateKeyFromPem(key_pem);
  if (!key.ok()) {
    return key.status();
  }
  return Create(*std::move(chain), *std::move(key));
}

absl::Status Svid::CheckUsable(absl::Time now) const {
  const auto who = [this](size_t i) {
    return base::StrCat("certificate ", i + 1, " of the chain of '", id_.uri(), "' ");
  };
  for (size_t i = 0; i < validities_.size(); ++i) {
    const auto& [begins, ends] = validities_[i];
    if (now < begins) {
      return absl::FailedPreconditionError(
          base::StrCat(who(i), "is not valid for another ", Rounded(begins - now)));
    }
    // RFC 5280 section 4.1.2.5 counts notAfter itself in; OpenSSL, and so our peers, do not.
    if (now >= ends) {
      return absl::FailedPreconditionError(
          base::StrCat(who(i), "expired ", Rounded(now - ends), " ago"));
    }
  }
  return absl::OkStatus();
}

}  // namespace postern::x509
