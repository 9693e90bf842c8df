// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/test_ca.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/x509/certificate.h"
#include "common/x509/key.h"

namespace postern::testing {
namespace {

using x509::PkeyPtr;
using x509::X509Ptr;

using ExtensionPtr = x509::OpensslPtr<X509_EXTENSION, X509_EXTENSION_free>;
using GeneralNamesPtr = x509::OpensslPtr<GENERAL_NAMES, GENERAL_NAMES_free>;
using BignumPtr = x509::OpensslPtr<BIGNUM, BN_free>;

void Must(bool good, const char* what) {
  if (good) {
    return;
  }
  std::fprintf(stderr, "TestCa: %s failed\n", what);
  ERR_print_errors_fp(stderr);
  std::abort();
}

template <typename T>
T Must(absl::StatusOr<T> value, const char* what) {
  if (!value.ok()) {
    std::fprintf(stderr, "TestCa: %s: %s\n", what, value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

const char* CurveOf(KeyType type) {
  switch (type) {
    case KeyType::kP192:
      return "P-192";
    case KeyType::kP224:
      return "P-224";
    case KeyType::kP256:
      return "P-256";
    case KeyType::kP384:
      return "P-384";
    case KeyType::kP521:
      return "P-521";
    default:
      return nullptr;
  }
}

void AddName(GENERAL_NAMES* names, int type, const std::string& text) {
  ASN1_IA5STRING* value = ASN1_IA5STRING_new();
  GENERAL_NAME* name = GENERAL_NAME_new();
  Must(ASN1_STRING_set(value, text.data(), static_cast<int>(text.size())) == 1, "a SAN's text");
  GENERAL_NAME_set0_value(name, type, value);
  Must(sk_GENERAL_NAME_push(names, name) > 0, "a SAN");
}

void AddRawExtension(X509* certificate, int nid, bool critical, const std::string& der) {
  const x509::OpensslPtr<ASN1_OCTET_STRING, ASN1_OCTET_STRING_free> value(ASN1_OCTET_STRING_new());
  Must(ASN1_OCTET_STRING_set(value.get(), reinterpret_cast<const unsigned char*>(der.data()),
                             static_cast<int>(der.size())) == 1,
       "an extension's value");
  const ExtensionPtr extension(
      X509_EXTENSION_create_by_NID(nullptr, nid, critical ? 1 : 0, value.get()));
  Must(extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1, "an extension");
}

void AddSubjectAltNames(X509* certificate, const CertificateSpec& spec) {
  const GeneralNamesPtr names(sk_GENERAL_NAME_new_null());
  for (const std::string& uri : spec.uris) {
    AddName(names.get(), GEN_URI, uri);
  }
  for (const std::string& dns : spec.dns_names) {
    AddName(names.get(), GEN_DNS, dns);
  }
  for (const std::string& email : spec.emails) {
    AddName(names.get(), GEN_EMAIL, email);
  }
  if (sk_GENERAL_NAME_num(names.get()) == 0) {
    return;
  }
  unsigned char* data = nullptr;
  const int size = i2d_GENERAL_NAMES(names.get(), &data);
  Must(size > 0, "the SANs");
  const std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  for (int i = 0; i < (spec.san_twice ? 2 : 1); ++i) {
    AddRawExtension(certificate, NID_subject_alt_name, spec.common_name.empty(),
                    der + spec.san_trailer);
  }
}

void AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_nconf_nid(nullptr, &context, nid, value.c_str()));
  Must(extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1, value.c_str());
}

void AddExtensions(X509* certificate, X509* issuer, const CertificateSpec& spec) {
  AddSubjectAltNames(certificate, spec);
  if (spec.ca.has_value()) {
    AddExtension(certificate, issuer, NID_basic_constraints,
                 std::string("critical,CA:") + (*spec.ca ? "TRUE" : "FALSE") +
                     (spec.path_length < 0 ? "" : ",pathlen:" + std::to_string(spec.path_length)));
  }
  if (spec.key_usage.has_value()) {
    AddExtension(certificate, issuer, NID_key_usage, "critical," + *spec.key_usage);
  }
  if (spec.extended_key_usage.has_value()) {
    if (spec.extended_key_usage->empty()) {
      AddRawExtension(certificate, NID_ext_key_usage, false, std::string("\x30\x00", 2));
    } else {
      AddExtension(certificate, issuer, NID_ext_key_usage, *spec.extended_key_usage);
    }
  }
  if (!spec.name_constraints.empty()) {
    AddExtension(certificate, issuer, NID_name_constraints, "critical," + spec.name_constraints);
  }
  if (spec.unknown_critical_extension) {
    // An object that OpenSSL knows by name and treats as no extension of X.509.
    AddRawExtension(certificate, NID_rsadsi, true, std::string("\x05\x00", 2));
  }
  AddExtension(certificate, issuer, NID_subject_key_identifier, "hash");
  if (issuer != certificate) {
    AddExtension(certificate, issuer, NID_authority_key_identifier, "keyid");
  }
}

void SetSerial(X509* certificate, std::string octets) {
  if (octets.empty()) {
    octets.resize(16);
    Must(RAND_bytes(reinterpret_cast<unsigned char*>(octets.data()), 16) == 1, "random bytes");
    octets[0] = static_cast<char>((octets[0] & 0x7f) | 0x40);  // positive, 16 octets
  }
  const BignumPtr number(BN_bin2bn(reinterpret_cast<const unsigned char*>(octets.data()),
                                   static_cast<int>(octets.size()), nullptr));
  Must(number != nullptr &&
           BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr,
       "the serial number");
}

void SetTime(ASN1_TIME* to, absl::Time time) {
  Must(ASN1_TIME_set(to, absl::ToTimeT(time)) != nullptr, "a time");
}

// A certificate signed by (issuer, issuer_key); issuer null: self-signed.
X509Ptr MakeCertificate(EVP_PKEY* public_key, const CertificateSpec& spec, X509* issuer,
                        EVP_PKEY* issuer_key) {
  X509Ptr certificate(X509_new());
  Must(certificate != nullptr && X509_set_version(certificate.get(), X509_VERSION_3) == 1,
       "a certificate");
  SetSerial(certificate.get(), spec.serial);
  SetTime(X509_getm_notBefore(certificate.get()), spec.not_before);
  SetTime(X509_getm_notAfter(certificate.get()), spec.not_after);
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  if (!spec.common_name.empty()) {
    Must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(spec.common_name.data()),
                                    static_cast<int>(spec.common_name.size()), -1, 0) == 1,
         "the subject");
  }
  X509* const signer = issuer == nullptr ? certificate.get() : issuer;
  Must(X509_set_issuer_name(certificate.get(), X509_get_subject_name(signer)) == 1, "the issuer");
  Must(X509_set_pubkey(certificate.get(), public_key) == 1, "the public key");
  AddExtensions(certificate.get(), signer, spec);
  const EVP_MD* digest = EVP_PKEY_get_base_id(issuer_key) == EVP_PKEY_ED25519
                             ? nullptr
                             : EVP_get_digestbyname(spec.digest.c_str());
  Must(X509_sign(certificate.get(), issuer_key, digest) > 0, "the signature");
  ERR_clear_error();
  return certificate;
}

}  // namespace

PkeyPtr MakeKey(KeyType type) {
  PkeyPtr key;
  if (const char* curve = CurveOf(type); curve != nullptr) {
    key.reset(EVP_EC_gen(curve));
  } else if (type == KeyType::kEd25519) {
    key.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  } else {
    const size_t bits = type == KeyType::kRsa512 ? 512 : type == KeyType::kRsa1024 ? 1024 : 2048;
    key.reset(EVP_RSA_gen(bits));
  }
  Must(key != nullptr, "a key");
  return key;
}

std::string KeyPem(EVP_PKEY* key) {
  return Must(x509::PrivateKeyToPem(key), "a key's PEM");
}

CertificateSpec& CertificateSpec::LivesFrom(absl::Time now, absl::Duration ttl) {
  not_before = now - absl::Minutes(2);
  not_after = now + ttl;
  return *this;
}

CertificateSpec LeafSpec(std::string_view uri) {
  CertificateSpec spec;
  spec.uris.emplace_back(uri);
  return spec;
}

CertificateSpec CaSpec(std::string_view common_name) {
  CertificateSpec spec;
  spec.common_name = std::string(common_name);
  spec.not_before = absl::FromUnixSeconds(1577836800);  // 2020-01-01
  spec.not_after = absl::FromUnixSeconds(2366841600);   // 2045-01-01
  spec.ca = true;
  spec.key_usage = "keyCertSign,cRLSign";
  spec.extended_key_usage.reset();
  return spec;
}

x509::X509StackPtr Minted::Untrusted() const {
  x509::X509StackPtr stack = x509::ShareX509Stack(std::span(chain).subspan(1));
  Must(stack != nullptr, "a stack");
  return stack;
}

std::string Minted::ChainPem() const {
  return x509::CertificatesToPem(chain);
}
std::string Minted::KeyPem() const {
  return testing::KeyPem(key.get());
}

TestCa::TestCa(std::string_view trust_domain)
    : TestCa(trust_domain, CaSpec(std::string(trust_domain) + " root")) {}

TestCa::TestCa(std::string_view trust_domain, const CertificateSpec& root)
    : trust_domain_(Must(x509::TrustDomain::Parse(trust_domain), "the trust domain")),
      key_(MakeKey(root.key_type)) {
  path_.push_back(MakeCertificate(key_.get(), root, nullptr, key_.get()));
}

TestCa::TestCa(x509::TrustDomain trust_domain, std::vector<X509Ptr> path, PkeyPtr key)
    : trust_domain_(std::move(trust_domain)), path_(std::move(path)), key_(std::move(key)) {}

TestCa TestCa::Intermediate() const {
  return Intermediate(
      CaSpec(trust_domain_.name() + " intermediate " + std::to_string(path_.size())));
}

TestCa TestCa::Intermediate(const CertificateSpec& spec) const {
  PkeyPtr key = MakeKey(spec.key_type);
  std::vector<X509Ptr> path;
  path.push_back(Sign(key.get(), spec));
  for (const X509Ptr& above : path_) {
    path.push_back(x509::ShareX509(above.get()));
  }
  return TestCa(trust_domain_, std::move(path), std::move(key));
}

x509::Svid TestCa::Issue(std::string_view uri) const {
  return IssueSvid(LeafSpec(uri));
}

x509::Svid TestCa::Issue(std::string_view uri, absl::Time now, absl::Duration ttl) const {
  return IssueSvid(LeafSpec(uri).LivesFrom(now, ttl));
}

x509::Svid TestCa::IssueSvid(const CertificateSpec& spec) const {
  Minted minted = Mint(spec);
  return Must(x509::Svid::Create(std::move(minted.chain), std::move(minted.key)), "an SVID");
}

Minted TestCa::Mint(const CertificateSpec& spec) const {
  Minted minted;
  minted.key = MakeKey(spec.key_type);
  minted.chain.push_back(Sign(minted.key.get(), spec));
  for (X509Ptr& intermediate : Intermediates()) {
    minted.chain.push_back(std::move(intermediate));
  }
  return minted;
}

X509Ptr TestCa::Sign(EVP_PKEY* public_key, const CertificateSpec& spec) const {
  return MakeCertificate(public_key, spec, certificate(), key_.get());
}

std::vector<X509Ptr> TestCa::Intermediates() const {
  std::vector<X509Ptr> intermediates;
  for (size_t i = 0; i + 1 < path_.size(); ++i) {
    intermediates.push_back(x509::ShareX509(path_[i].get()));
  }
  return intermediates;
}

x509::TrustBundle TestCa::Bundle() const {
  std::vector<X509Ptr> roots;
  roots.push_back(Root());
  return Must(x509::TrustBundle::Create(trust_domain_, std::move(roots)), "a bundle");
}

x509::TrustBundleSet TestCa::BundleSet() const {
  return BundleSetOf({this});
}

std::string TestCa::RootPem() const {
  return x509::CertificateToPem(root());
}

x509::TrustBundleSet BundleSetOf(const std::vector<const TestCa*>& cas) {
  std::vector<x509::TrustBundle> bundles;
  for (const TestCa* ca : cas) {
    bundles.push_back(ca->Bundle());
  }
  return x509::TrustBundleSet(std::move(bundles));
}

}  // namespace postern::testing
