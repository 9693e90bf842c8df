// SPDX-License-Identifier: Apache-2.0
#include "control/issue/check_signed.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"

namespace postern::issue {
namespace {

constexpr int kMaxSerialOctets = 20;  // RFC 5280 section 4.1.2.2

absl::Status Broken(std::string_view what) {
  return absl::InternalError(base::ToAbsl(what));
}

absl::Status CheckSerial(X509* leaf) {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(leaf);
  const int size = ASN1_STRING_length(serial);
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER || size < 1 || size > kMaxSerialOctets ||
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

absl::Status CheckTimes(const ca::SignedSvid& made, const ca::SvidTemplate& wanted, X509* leaf,
                        absl::Time now) {
  if (x509::NotBefore(leaf) != made.not_before || x509::NotAfter(leaf) != made.not_after) {
    return Broken("the validity is not what the signer says");
  }
  if (made.not_after > now + wanted.ttl) {
    return Broken("the certificate lives longer than was asked for");
  }
  for (size_t i = 1; i < made.chain.size(); ++i) {
    if (made.not_after > x509::NotAfter(made.chain[i].get())) {
      return Broken("the certificate lives longer than its chain");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckChain(const ca::SignedSvid& made, const ca::SvidTemplate& wanted, X509* leaf,
                        const x509::TrustBundleSet& bundles, absl::Time now) {
  const x509::OpensslPtr<STACK_OF(X509), [](STACK_OF(X509) * stack) { sk_X509_free(stack); }>
      untrusted(sk_X509_new_null());
  for (size_t i = 1; i < made.chain.size(); ++i) {
    if (untrusted == nullptr || sk_X509_push(untrusted.get(), made.chain[i].get()) <= 0) {
      return Broken("out of memory");
    }
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

}  // namespace

absl::Status CheckSigned(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                         const x509::TrustBundleSet& bundles, absl::Time now) {
  if (made.chain.empty()) {
    return Broken("there is no certificate");
  }
  // From the bytes that go out, not from the object that they were made from.
  const absl::StatusOr<x509::X509Ptr> leaf =
      x509::CertificateFromDer(base::AsBytes(x509::CertificateToDer(made.chain.front().get())));
  if (!leaf.ok()) {
    return Broken("the certificate does not parse");
  }
  if (EVP_PKEY_eq(X509_get0_pubkey(leaf->get()), wanted.public_key) != 1) {
    return Broken("it is for another key");
  }
  if (x509::SerialHex(leaf->get()) != made.serial) {
    return Broken("the serial number is not what the signer says");
  }
  absl::Status status = CheckProfile(leaf->get());
  if (status.ok()) {
    status = CheckTimes(made, wanted, leaf->get(), now);
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
  store::IssuedCertificate record{.serial = made.serial,
                                  .spiffe_id = wanted.id,
                                  .entry_id = entry_id,
                                  .ca_id = made.ca_id,
                                  .not_before = made.not_before,
                                  .not_after = made.not_after,
                                  .issued_at = issued_at};
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(wanted.public_key, &der);
  if (size <= 0) {
    return absl::InternalError("the public key cannot be encoded");
  }
  SHA256(der, static_cast<size_t>(size), record.key_sha256.data());
  OPENSSL_free(der);
  record.leaf_sha256 = x509::Sha256OfCertificate(made.chain.front().get());
  return record;
}

}  // namespace postern::issue
