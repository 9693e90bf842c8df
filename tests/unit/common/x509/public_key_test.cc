// SPDX-License-Identifier: Apache-2.0
#include "common/x509/public_key.h"

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/err.h>

#include "common/x509/key.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

std::string OpensslDer(EVP_PKEY* key) {
  unsigned char* data = nullptr;
  const int size = i2d_PUBKEY(key, &data);
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

class PublicKeyTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }
};

TEST_F(PublicKeyTest, EncodesAsOpensslDoes) {
  const PkeyPtr p256 = *GenerateP256Key();
  const PkeyPtr p384(EVP_EC_gen("P-384"));
  const PkeyPtr rsa(EVP_RSA_gen(2048));
  const PkeyPtr ed25519(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  const PkeyPtr compressed = *GenerateP256Key();
  ASSERT_EQ(
      EVP_PKEY_set_utf8_string_param(compressed.get(), OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                     OSSL_PKEY_EC_POINT_CONVERSION_FORMAT_COMPRESSED),
      1);
  for (EVP_PKEY* key : {p256.get(), p384.get(), rsa.get(), ed25519.get(), compressed.get()}) {
    const absl::StatusOr<std::string> der = PublicKeyToDer(key);
    ASSERT_TRUE(der.ok()) << der.status();
    EXPECT_EQ(*der, OpensslDer(key));
  }
  EXPECT_EQ(UsualP256Point(p256.get()).size(), 65U);
  for (EVP_PKEY* key : {p384.get(), rsa.get(), ed25519.get(), compressed.get()}) {
    EXPECT_EQ(UsualP256Point(key), "");
  }
}

TEST_F(PublicKeyTest, DecodesTheUsualP256KeyToTheSameKey) {
  const PkeyPtr key = *GenerateP256Key();
  const std::string der = OpensslDer(key.get());
  const PkeyPtr decoded = UsualP256FromDer(base::AsBytes(der));
  ASSERT_NE(decoded, nullptr);
  EXPECT_EQ(EVP_PKEY_eq(decoded.get(), key.get()), 1);
  EXPECT_TRUE(CheckKeyStrength(decoded.get()).ok());
  EXPECT_EQ(*PublicKeyToDer(decoded.get()), der);
}

TEST_F(PublicKeyTest, DecodesNothingElse) {
  const PkeyPtr key = *GenerateP256Key();
  const PkeyPtr p384(EVP_EC_gen("P-384"));
  const std::string good = OpensslDer(key.get());
  EXPECT_EQ(UsualP256FromDer({}), nullptr);
  EXPECT_EQ(UsualP256FromDer(base::AsBytes(OpensslDer(p384.get()))), nullptr);
  EXPECT_EQ(UsualP256FromDer(base::AsBytes(good + "x")), nullptr);
  EXPECT_EQ(UsualP256FromDer(base::AsBytes(good.substr(0, good.size() - 1))), nullptr);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 0x01);  // in the point: off the curve
    EXPECT_EQ(UsualP256FromDer(base::AsBytes(changed)), nullptr) << "byte " << i;
  }
}

}  // namespace
}  // namespace postern::x509
