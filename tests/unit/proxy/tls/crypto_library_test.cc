// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/crypto_library.h"

#include <gtest/gtest.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>

#include "common/x509/openssl_ptr.h"

namespace postern::tls {
namespace {

using x509::PkeyPtr;

// Whether this library reads a public key of the kind, as a certificate has it.
bool Reads(OSSL_LIB_CTX* library, const PkeyPtr& key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key.get(), &der);
  const unsigned char* at = der;
  const PkeyPtr read(d2i_PUBKEY_ex(nullptr, &at, size, library, nullptr));
  OPENSSL_free(der);
  ERR_clear_error();
  return read != nullptr;
}

bool IsOldLibrary() {
  return OPENSSL_version_major() == 3 && OPENSSL_version_minor() < 2;
}

TEST(CryptoLibraryTest, IsOneForKeysOnCurvesAndOldOpensslAlone) {
  const PkeyPtr ec(EVP_EC_gen("P-256"));
  const PkeyPtr rsa(EVP_RSA_gen(2048));
  EXPECT_EQ(TlsLibraryFor(ec.get()) != nullptr, IsOldLibrary());
  EXPECT_EQ(TlsLibraryFor(ec.get()), TlsLibraryFor(ec.get()));
  EXPECT_EQ(TlsLibraryFor(rsa.get()), nullptr);
}

TEST(CryptoLibraryTest, ReadsTheKeysThatCertificatesMayHave) {
  const PkeyPtr ec(EVP_EC_gen("P-256"));
  const PkeyPtr p384(EVP_EC_gen("P-384"));
  const PkeyPtr rsa(EVP_RSA_gen(2048));
  const PkeyPtr ed25519(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  const PkeyPtr ed448(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED448"));
  OSSL_LIB_CTX* const library = TlsLibraryFor(ec.get());
  for (const PkeyPtr* key : {&ec, &p384, &rsa, &ed25519}) {
    EXPECT_TRUE(Reads(library, *key)) << EVP_PKEY_get0_type_name(key->get());
  }
  EXPECT_EQ(Reads(library, ed448), library == nullptr);
  EXPECT_TRUE(Reads(nullptr, ed448)) << "the process's own context is as it was";
}

}  // namespace
}  // namespace postern::tls
