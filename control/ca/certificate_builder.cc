// SPDX-License-Identifier: Apache-2.0
#include "control/ca/certificate_builder.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <memory>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"
#include "common/x509/key.h"
#include "common/x509/public_key.h"

namespace postern::ca {
namespace {

using x509::OpensslPtr;
using BignumPtr = OpensslPtr<BIGNUM, BN_free>;
using IntegerPtr = OpensslPtr<ASN1_INTEGER, ASN1_INTEGER_free>;
using TimePtr = OpensslPtr<ASN1_TIME, ASN1_TIME_free>;
using OctetsPtr = OpensslPtr<ASN1_OCTET_STRING, ASN1_OCTET_STRING_free>;
using GeneralNamesPtr = OpensslPtr<GENERAL_NAMES, GENERAL_NAMES_free>;
using GeneralNamePtr = OpensslPtr<GENERAL_NAME, GENERAL_NAME_free>;
using Ia5Ptr = OpensslPtr<ASN1_IA5STRING, ASN1_IA5STRING_free>;
using AuthorityKeyIdPtr = OpensslPtr<AUTHORITY_KEYID, AUTHORITY_KEYID_free>;
using ContextPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;
using ExtensionPtr = OpensslPtr<X509_EXTENSION, X509_EXTENSION_free>;

constexpr size_t kKeyIdBytes = 20;  // RFC 7093 section 2, method 1: leftmost 160 bits of SHA-256

absl::Status OpensslError(std::string_view what) {
  const unsigned long code = ERR_get_error();
  const char* reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return absl::InternalError(
      base::StrCat("cannot ", what, ": ", reason == nullptr ? "out of memory" : reason));
}

bool SetSerial(X509* certificate, const SerialBytes& bytes) {
  const BignumPtr number(BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  // As an INTEGER of its own the number gets a leading zero byte where its top bit is set:
  // positive.
  const IntegerPtr serial(number == nullptr ? nullptr : BN_to_ASN1_INTEGER(number.get(), nullptr));
  return serial != nullptr && !BN_is_zero(number.get()) &&
         X509_set_serialNumber(certificate, serial.get()) == 1;
}

bool SetValidity(X509* certificate, const Validity& validity) {
  const TimePtr begin(ASN1_TIME_set(nullptr, absl::ToTimeT(validity.not_before)));
  const TimePtr end(ASN1_TIME_set(nullptr, absl::ToTimeT(validity.not_after)));
  return begin != nullptr && end != nullptr && X509_set1_notBefore(certificate, begin.get()) == 1 &&
         X509_set1_notAfter(certificate, end.get()) == 1;
}

// `value` is a literal in OpenSSL's notation, never data.
ExtensionPtr MakeFixed(int nid, const char* value) {
  return ExtensionPtr(X509V3_EXT_conf_nid(nullptr, nullptr, nid, value));
}

bool Add(X509* certificate, const ExtensionPtr& extension) {
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool AddFixed(X509* certificate, int nid, const char* value) {
  return Add(certificate, MakeFixed(nid, value));
}

// What is the same in each leaf, made once: OpenSSL parses its notation rather slowly.
bool AddLeafUsage(X509* certificate) {
  static const ExtensionPtr constraints = MakeFixed(NID_basic_constraints, "critical,CA:FALSE");
  static const ExtensionPtr usage = MakeFixed(NID_key_usage, "critical,digitalSignature");
  static const ExtensionPtr extended = MakeFixed(NID_ext_key_usage, "serverAuth,clientAuth");
  return Add(certificate, constraints) && Add(certificate, usage) && Add(certificate, extended);
}

// As X509_set_pubkey, which in OpenSSL 3.0 encodes the key and decodes it again, at more than twice
// the cost of the signature. The certificate then has no EVP_PKEY until it is parsed again.
bool SetPublicKey(X509* certificate, EVP_PKEY* key) {
  const std::string point = x509::UsualP256Point(key);
  if (point.empty()) {
    return X509_set_pubkey(certificate, key) == 1;
  }
  auto* octets = static_cast<unsigned char*>(OPENSSL_memdup(point.data(), point.size()));
  if (octets == nullptr) {
    return false;
  }
  if (X509_PUBKEY_set0_param(
          X509_get_X509_PUBKEY(certificate), OBJ_nid2obj(NID_X9_62_id_ecPublicKey), V_ASN1_OBJECT,
          OBJ_nid2obj(NID_X9_62_prime256v1), octets, static_cast<int>(point.size())) != 1) {
    OPENSSL_free(octets);
    return false;
  }
  return true;
}

// Made of parts, not of text: nothing in the URI can be taken for another name.
bool AddUriSan(X509* certificate, const std::string& uri, bool critical) {
  const GeneralNamesPtr names(GENERAL_NAMES_new());
  Ia5Ptr text(ASN1_IA5STRING_new());
  GeneralNamePtr name(GENERAL_NAME_new());
  if (names == nullptr || text == nullptr || name == nullptr ||
      ASN1_STRING_set(text.get(), uri.data(), static_cast<int>(uri.size())) != 1) {
    return false;
  }
  GENERAL_NAME_set0_value(name.get(), GEN_URI, text.release());
  if (sk_GENERAL_NAME_push(names.get(), name.get()) <= 0) {
    return false;
  }
  static_cast<void>(name.release());  // now the stack's
  return X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), critical ? 1 : 0,
                           X509V3_ADD_DEFAULT) == 1;
}

OctetsPtr KeyIdOf(EVP_PKEY* key) {
  const absl::StatusOr<base::Sha256Digest> digest = KeySha256(key);
  OctetsPtr id(ASN1_OCTET_STRING_new());
  if (!digest.ok() || id == nullptr ||
      ASN1_OCTET_STRING_set(id.get(), digest->data(), kKeyIdBytes) != 1) {
    return nullptr;
  }
  return id;
}

bool AddKeyIds(X509* certificate, EVP_PKEY* public_key, const Issuing& issuing) {
  const OctetsPtr subject = KeyIdOf(public_key);
  const AuthorityKeyIdPtr authority(AUTHORITY_KEYID_new());
  if (subject == nullptr || authority == nullptr) {
    return false;
  }
  const ASN1_OCTET_STRING* issuer = issuing.certificate == nullptr
                                        ? subject.get()
                                        : X509_get0_subject_key_id(issuing.certificate);
  if (issuer == nullptr) {
    return false;
  }
  authority->keyid = ASN1_OCTET_STRING_dup(issuer);
  return authority->keyid != nullptr &&
         X509_add1_ext_i2d(certificate, NID_subject_key_identifier, subject.get(), 0,
                           X509V3_ADD_DEFAULT) == 1 &&
         X509_add1_ext_i2d(certificate, NID_authority_key_identifier, authority.get(), 0,
                           X509V3_ADD_DEFAULT) == 1;
}

bool SetCaSubject(X509* certificate, const std::string& common_name) {
  X509_NAME* name = X509_get_subject_name(certificate);
  const auto add = [name](const char* field, const std::string& value) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_ASC,
                                      reinterpret_cast<const unsigned char*>(value.data()),
                                      static_cast<int>(value.size()), -1, 0) == 1;
  };
  return add("O", "Postern") && add("CN", common_name);
}

// What all three profiles share, before their extensions.
x509::X509Ptr Begin(EVP_PKEY* public_key, const SerialBytes& serial, const Validity& validity) {
  x509::X509Ptr certificate(X509_new());
  if (certificate == nullptr || X509_set_version(certificate.get(), X509_VERSION_3) != 1 ||
      !SetSerial(certificate.get(), serial) || !SetValidity(certificate.get(), validity) ||
      !SetPublicKey(certificate.get(), public_key)) {
    return nullptr;
  }
  return certificate;
}

bool Finish(X509* certificate, const Issuing& issuing) {
  X509* const issuer = issuing.certificate == nullptr ? certificate : issuing.certificate;
  // A key in a token may not tell its type; the certificate does. Our own new CAs are P-256.
  const EVP_MD* digest = issuing.certificate == nullptr
                             ? EVP_sha256()
                             : x509::SignatureDigest(X509_get0_pubkey(issuing.certificate));
  return X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) == 1 &&
         X509_sign(certificate, issuing.key, digest) > 0;
}

}  // namespace

absl::StatusOr<base::Sha256Digest> KeySha256(EVP_PKEY* key) {
  const absl::StatusOr<std::string> der = x509::PublicKeyToDer(key);
  if (!der.ok()) {
    return der.status();
  }
  return x509::Sha256(base::AsBytes(*der));
}

absl::StatusOr<std::string> Sign(EVP_PKEY* key, const EVP_MD* digest, base::ByteSpan data) {
  const ContextPtr context(EVP_MD_CTX_new());
  size_t size = 0;
  if (context == nullptr || EVP_DigestSignInit(context.get(), nullptr, digest, nullptr, key) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, data.data(), data.size()) != 1) {
    return OpensslError("sign");
  }
  std::string signature(size, '\0');
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     data.data(), data.size()) != 1) {
    return OpensslError("sign");
  }
  signature.resize(size);  // a DER signature may be shorter than the longest
  return signature;
}

absl::StatusOr<x509::X509Ptr> BuildCa(const std::string& common_name, const std::string& uri,
                                      int path_length, EVP_PKEY* public_key,
                                      const SerialBytes& serial, const Validity& validity,
                                      const Issuing& issuing) {
  x509::X509Ptr certificate = Begin(public_key, serial, validity);
  const std::string constraints = base::StrCat("critical,CA:TRUE,pathlen:", path_length);
  if (certificate == nullptr || !SetCaSubject(certificate.get(), common_name) ||
      !AddFixed(certificate.get(), NID_basic_constraints, constraints.c_str()) ||
      !AddFixed(certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !AddUriSan(certificate.get(), uri, false) ||
      !AddKeyIds(certificate.get(), public_key, issuing) || !Finish(certificate.get(), issuing)) {
    return OpensslError("make a CA certificate");
  }
  return x509::CertificateFromDer(base::AsBytes(x509::CertificateToDer(certificate.get())));
}

absl::StatusOr<std::string> BuildLeaf(const std::string& uri, EVP_PKEY* public_key,
                                      const SerialBytes& serial, const Validity& validity,
                                      const Issuing& issuing) {
  x509::X509Ptr certificate = Begin(public_key, serial, validity);
  // The subject stays empty, so the SAN is critical (RFC 5280 section 4.2.1.6).
  if (certificate == nullptr || !AddLeafUsage(certificate.get()) ||
      !AddUriSan(certificate.get(), uri, true) ||
      !AddKeyIds(certificate.get(), public_key, issuing) || !Finish(certificate.get(), issuing)) {
    return OpensslError("make a certificate");
  }
  std::string der = x509::CertificateToDer(certificate.get());
  if (der.empty()) {
    return OpensslError("encode a certificate");
  }
  return der;
}

}  // namespace postern::ca
