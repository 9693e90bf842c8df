// SPDX-License-Identifier: Apache-2.0
#include "common/x509/member_key.h"

#include <openssl/core_names.h>
#include <openssl/pem.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdint>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"
#include "common/x509/public_key.h"

namespace postern::x509 {
namespace {

constexpr size_t kEd25519Bytes = 32;

// SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING without unused bits }, up to the key (RFC 8410).
constexpr std::array<uint8_t, 12> kEd25519Prefix = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                                    0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

absl::Status NotAMembers(std::string_view problem) {
  return absl::InvalidArgumentError(
      base::StrCat("no member's key: ", problem, "; it is Ed25519 or P-256"));
}

absl::StatusOr<std::string> Ed25519ToDer(EVP_PKEY* key) {
  std::array<uint8_t, kEd25519Bytes> raw{};
  size_t size = raw.size();
  if (EVP_PKEY_get_raw_public_key(key, raw.data(), &size) != 1 || size != raw.size()) {
    return OpensslFailure("cannot read an Ed25519 key");
  }
  return base::StrCat(base::AsText(kEd25519Prefix), base::AsText(raw));
}

size_t Count(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

absl::StatusOr<PkeyPtr> FromPublicKeyBlock(std::string_view pem) {
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  PkeyPtr key(bio == nullptr ? nullptr : PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
  if (key == nullptr) {
    return NotAMembers("the block 'PUBLIC KEY' does not parse");
  }
  return key;
}

absl::StatusOr<PkeyPtr> FromCertificates(std::string_view pem) {
  const auto certificates = CertificatesFromPem(pem);
  if (!certificates.ok()) {
    return certificates.status();
  }
  EVP_PKEY* const key = X509_get0_pubkey(certificates->front().get());
  if (key == nullptr) {
    return NotAMembers("the certificate's key does not parse");
  }
  return SharePkey(key);
}

}  // namespace

absl::StatusOr<PkeyPtr> GenerateMemberKey(MemberKeyType type) {
  const ErrorQueueGuard guard;
  if (type == MemberKeyType::kP256) {
    return GenerateP256Key();
  }
  PkeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (key == nullptr) {
    return OpensslFailure("cannot make an Ed25519 key");
  }
  return key;
}

absl::StatusOr<std::string> MemberKeyToDer(EVP_PKEY* key) {
  const ErrorQueueGuard guard;
  if (key == nullptr) {
    return NotAMembers("it does not parse");
  }
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) {
    return Ed25519ToDer(key);
  }
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && UsualP256Point(key).empty()) {
    // Compressed maybe; if it is another curve, the next look says so.
    EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                   OSSL_PKEY_EC_POINT_CONVERSION_FORMAT_UNCOMPRESSED);
  }
  if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || UsualP256Point(key).empty()) {
    const char* const name = EVP_PKEY_get0_type_name(key);
    return NotAMembers(base::StrCat("a key of type ", name == nullptr ? "unknown" : name, ", ",
                                    EVP_PKEY_get_bits(key),
                                    " bits, is none (or not on the named curve)"));
  }
  return PublicKeyToDer(key);
}

absl::StatusOr<std::string> MemberKeyToPem(EVP_PKEY* key) {
  const ErrorQueueGuard guard;
  if (const auto der = MemberKeyToDer(key); !der.ok()) {
    return der.status();
  }
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_PUBKEY(bio.get(), key) != 1) {
    return OpensslFailure("cannot write a public key");
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<PkeyPtr> MemberKeyFromDer(base::ByteSpan spki) {
  const ErrorQueueGuard guard;
  PkeyPtr key;
  if (spki.size() == kEd25519Prefix.size() + kEd25519Bytes &&
      std::equal(kEd25519Prefix.begin(), kEd25519Prefix.end(), spki.begin())) {
    const base::ByteSpan raw = spki.subspan(kEd25519Prefix.size());
    key.reset(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw.data(), raw.size()));
  } else {
    key = UsualP256FromDer(spki);
  }
  if (key == nullptr) {
    return NotAMembers(base::StrCat("these ", spki.size(), " bytes are not one in its usual form"));
  }
  return key;
}

absl::StatusOr<std::string> MemberKeyDerFromPem(std::string_view pem) {
  const ErrorQueueGuard guard;
  if (pem.size() > INT_MAX) {
    return NotAMembers("the text is too large");
  }
  if (pem.find("PRIVATE KEY-----") != std::string_view::npos) {
    return absl::InvalidArgumentError(
        "this holds a private key, which is the member's alone: give the public half, as `openssl "
        "pkey -in FILE -pubout` writes it");
  }
  const size_t keys = Count(pem, "-----BEGIN PUBLIC KEY-----");
  const bool certificates = Count(pem, "-----BEGIN CERTIFICATE-----") > 0;
  if (keys > 1 || (keys == 1 && certificates)) {
    return NotAMembers("the text holds several, and an entry names one");
  }
  if (keys == 0 && !certificates) {
    return NotAMembers("the text holds neither a PUBLIC KEY nor a CERTIFICATE in PEM form");
  }
  const absl::StatusOr<PkeyPtr> key = keys == 1 ? FromPublicKeyBlock(pem) : FromCertificates(pem);
  return key.ok() ? MemberKeyToDer(key->get()) : key.status();
}

std::string MemberKeySelector(base::ByteSpan spki) {
  return base::StrCat(kMemberKeySelector, base::ToHex(Sha256(spki)));
}

}  // namespace postern::x509
