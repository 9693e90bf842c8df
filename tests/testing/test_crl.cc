// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/test_crl.h"

#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>

namespace postern::testing {
namespace {

using Asn1TimePtr = x509::OpensslPtr<ASN1_TIME, ASN1_TIME_free>;
using Asn1IntegerPtr = x509::OpensslPtr<ASN1_INTEGER, ASN1_INTEGER_free>;

void Must(bool done, const char* what) {
  if (!done) {
    std::fprintf(stderr, "test CRL: %s\n", what);
    std::abort();
  }
}

Asn1TimePtr TimeOf(absl::Time time) {
  Asn1TimePtr made(ASN1_TIME_set(nullptr, absl::ToTimeT(time)));
  Must(made != nullptr, "a time");
  return made;
}

Asn1IntegerPtr NumberOf(const std::string& hex) {
  BIGNUM* number = nullptr;
  Must(BN_hex2bn(&number, hex.c_str()) > 0, "a serial");
  Asn1IntegerPtr made(BN_to_ASN1_INTEGER(number, nullptr));
  BN_free(number);
  Must(made != nullptr, "a serial");
  return made;
}

std::string ContentOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace

x509::X509CrlPtr MakeCrl(const TestCa& ca, const CrlSpec& spec) {
  return MakeCrl(ca, spec, ca.key());
}

x509::X509CrlPtr MakeCrl(const TestCa& ca, const CrlSpec& spec, EVP_PKEY* signer) {
  x509::X509CrlPtr crl(X509_CRL_new());
  Must(crl != nullptr && X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) == 1, "version");
  Must(X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(ca.certificate())) == 1, "issuer");
  Must(X509_CRL_set1_lastUpdate(crl.get(), TimeOf(spec.this_update).get()) == 1, "thisUpdate");
  if (spec.next_update != absl::InfiniteFuture()) {
    Must(X509_CRL_set1_nextUpdate(crl.get(), TimeOf(spec.next_update).get()) == 1, "nextUpdate");
  }
  for (const std::string& serial : spec.serials) {
    X509_REVOKED* const entry = X509_REVOKED_new();
    Must(entry != nullptr, "an entry");
    X509_REVOKED_set_serialNumber(entry, NumberOf(serial).get());
    X509_REVOKED_set_revocationDate(entry, TimeOf(spec.this_update).get());
    Must(X509_CRL_add0_revoked(crl.get(), entry) == 1, "an entry");
  }
  if (spec.delta) {
    const Asn1IntegerPtr base = NumberOf("01");
    Must(X509_CRL_add1_ext_i2d(crl.get(), NID_delta_crl, base.get(), 1, 0) == 1, "delta indicator");
  }
  X509_CRL_sort(crl.get());
  Must(X509_CRL_sign(crl.get(), signer, EVP_get_digestbyname(spec.digest.c_str())) > 0, "signing");
  return crl;
}

std::string CrlPem(X509_CRL* crl) {
  const x509::BioPtr bio(BIO_new(BIO_s_mem()));
  Must(PEM_write_bio_X509_CRL(bio.get(), crl) == 1, "PEM");
  return ContentOf(bio.get());
}

std::string CrlDer(X509_CRL* crl) {
  const x509::BioPtr bio(BIO_new(BIO_s_mem()));
  Must(i2d_X509_CRL_bio(bio.get(), crl) == 1, "DER");
  return ContentOf(bio.get());
}

}  // namespace postern::testing
