// SPDX-License-Identifier: Apache-2.0
#include "control/issue/check_signed.h"

#include <openssl/crypto.h>
#include <openssl/x509v3.h>

#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/digest.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"
#include "common/x509/public_key.h"
#include "control/issue/leaf_profile.h"

namespace postern::issue {
namespace {

constexpr size_t kMaxSerialOctets = 20;  // RFC 5280 section 4.1.2.2

absl::Status Broken(std::string_view what) {
  return absl::InternalError(base::ToAbsl(what));
}

absl::Status CheckSerial(X509* leaf) {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(leaf);
  const int size = ASN1_STRING_length(serial);
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER || size < 1 ||
      static_cast<size_t>(size) > kMaxSerialOctets ||
      (size == 1 && ASN1_STRING_get0_data(serial)[0] == 0)) {
    return Broken("the serial number is not positive, or too long");
  }
  return absl::OkStatus();
}

bool IsCritical(X509* leaf, int nid) {
  const int at = X509_get_ext_by_NID(leaf, nid, -1);
  return at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(leaf, at)) == 1;
}

absl::Status CheckProfile(X509* leaf) {
  if (x509::IsCa(leaf)) {
    return Broken("the leaf is a CA");
  }
  if (X509_NAME_entry_count(X509_get_subject_name(leaf)) != 0) {
    return Broken("the subject is not empty");
  }
  if (!IsCritical(leaf, NID_subject_alt_name) || !IsCritical(leaf, NID_key_usage)) {
    return Broken("the SAN or the key usage is not critical");
  }
  if (X509_get_key_usage(leaf) != KU_DIGITAL_SIGNATURE) {
    return Broken("the key usage is not just digitalSignature");
  }
  if (X509_get_extended_key_usage(leaf) != (XKU_SSL_SERVER | XKU_SSL_CLIENT)) {
    return Broken("the extended key usage is not serverAuth and clientAuth");
  }
  if (X509_get0_subject_key_id(leaf) == nullptr || X509_get0_authority_key_id(leaf) == nullptr) {
    return Broken("a key identifier is missing");
  }
  return CheckSerial(leaf);
}

absl::Status CheckTimes(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                        absl::Time now) {
  if (made.not_after > now + wanted.ttl) {
    return Broken("the certificate lives longer than was asked for");
  }
  if (made.not_after > made.signer->not_after) {
    return Broken("the certificate lives longer than its chain");
  }
  if (made.not_before < made.signer->not_before) {
    return Broken("the certificate is older than its chain");
  }
  if (now < made.not_before || now >= made.not_after) {
    return Broken("the certificate is not valid now");
  }
  return absl::OkStatus();
}

absl::Status CheckChain(const ca::SignedSvid& made, const ca::SvidTemplate& wanted, X509* leaf,
                        const x509::TrustBundleSet& bundles, absl::Time now) {
  const x509::X509StackPtr untrusted = x509::ShareX509Stack(made.signer->chain);
  if (untrusted == nullptr) {
    return Broken("out of memory");
  }
  const x509::ChainVerdict verdict =
      x509::VerifyPeerChain(leaf, untrusted.get(), bundles, x509::PeerRole::kServer, now);
  if (!verdict.peer.has_value()) {
    return Broken(base::StrCat("it does not verify: ", verdict.error.detail));
  }
  if (verdict.peer->id != wanted.id) {
    return Broken("it names another identity");
  }
  if (verdict.peer->not_after < made.not_after) {
    return Broken("the certificate lives longer than its root");
  }
  return absl::OkStatus();
}

bool VerifySignature(EVP_PKEY* signer, const SignedParts& parts) {
  const x509::ErrorQueueGuard guard;
  const x509::OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free> context(EVP_MD_CTX_new());
  const EVP_MD* digest = x509::SignatureDigest(signer);
  return context != nullptr &&
         EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, signer) == 1 &&
         EVP_DigestVerify(context.get(), base::AsBytes(parts.signature).data(),
                          parts.signature.size(), base::AsBytes(parts.tbs).data(),
                          parts.tbs.size()) == 1;
}

absl::Status CheckFacts(const ca::SignedSvid& made, const ca::SvidTemplate& wanted, X509* leaf) {
  if (EVP_PKEY_eq(X509_get0_pubkey(leaf), wanted.public_key) != 1) {
    return Broken("it is for another key");
  }
  if (x509::SerialHex(leaf) != made.serial) {
    return Broken("the serial number is not what the signer says");
  }
  if (x509::NotBefore(leaf) != made.not_before || x509::NotAfter(leaf) != made.not_after) {
    return Broken("the validity is not what the signer says");
  }
  return CheckProfile(leaf);
}

}  // namespace

absl::Status CheckSigned(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                         absl::Time now) {
  const absl::StatusOr<std::string> expected = ExpectedTbs(made, wanted);
  if (!expected.ok()) {
    return expected.status();
  }
  if (made.serial.size() > 2 * kMaxSerialOctets - 2) {  // 19 octets: one is left for the sign
    return Broken("the serial number is too long");
  }
  EVP_PKEY* const signer = X509_get0_pubkey(made.signer->chain.front().get());
  const SignedParts parts = SplitCertificate(made.leaf_der, signer);
  if (parts.tbs.empty()) {
    return Broken("the certificate does not parse");
  }
  if (parts.tbs != *expected) {
    return Broken("the encoding is not the one that was wanted");
  }
  if (absl::Status status = CheckTimes(made, wanted, now); !status.ok()) {
    return status;
  }
  if (!VerifySignature(signer, parts)) {
    return Broken("the signature does not verify");
  }
  return absl::OkStatus();
}

absl::Status CheckSignedAsPeer(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                               const x509::TrustBundleSet& bundles, absl::Time now) {
  const absl::StatusOr<x509::X509Ptr> leaf = x509::CertificateFromDer(base::AsBytes(made.leaf_der));
  if (!leaf.ok()) {
    return Broken("the certificate does not parse");
  }
  absl::Status status = CheckFacts(made, wanted, leaf->get());
  if (status.ok()) {
    status = CheckTimes(made, wanted, now);
  }
  if (status.ok()) {
    status = CheckChain(made, wanted, leaf->get(), bundles, now);
  }
  return status;
}

absl::StatusOr<store::IssuedCertificate> RecordOf(const ca::SignedSvid& made,
                                                  const ca::SvidTemplate& wanted,
                                                  const std::string& entry_id,
                                                  absl::Time issued_at) {
  const absl::StatusOr<std::string> spki = x509::PublicKeyToDer(wanted.public_key);
  if (!spki.ok()) {
    return spki.status();
  }
  store::IssuedCertificate record{.serial = made.serial,
                                  .spiffe_id = wanted.id,
                                  .entry_id = entry_id,
                                  .ca_id = made.signer->ca_id,
                                  .not_before = made.not_before,
                                  .not_after = made.not_after,
                                  .issued_at = issued_at};
  record.key_sha256 = x509::Sha256(base::AsBytes(*spki));
  record.leaf_sha256 = x509::Sha256(base::AsBytes(made.leaf_der));
  return record;
}

}  // namespace postern::issue
