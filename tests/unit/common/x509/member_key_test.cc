// SPDX-License-Identifier: Apache-2.0
#include "common/x509/member_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/pem.h>

#include <array>

#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using postern::testing::KeyType;
using postern::testing::MakeKey;
using postern::testing::TestCa;
using ::testing::HasSubstr;

// The public key of RFC 8032 section 7.1, test 1.
constexpr char kEd25519Der[] =
    "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

// Of any kind of key, also those that no member has.
std::string PublicPem(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PUBKEY(bio.get(), key);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

std::string RawDer(EVP_PKEY* key) {
  unsigned char* data = nullptr;
  const int size = i2d_PUBKEY(key, &data);
  std::string der(reinterpret_cast<char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

// A P-256 key whose point is written compressed.
PkeyPtr Compressed() {
  PkeyPtr key = MakeKey(KeyType::kP256);
  EXPECT_EQ(EVP_PKEY_set_utf8_string_param(key.get(), OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                           OSSL_PKEY_EC_POINT_CONVERSION_FORMAT_COMPRESSED),
            1);
  return key;
}

TEST(MemberKeyTest, EachKindHasOneEncodingThatIsReadBack) {
  for (const MemberKeyType type : {MemberKeyType::kEd25519, MemberKeyType::kP256}) {
    const PkeyPtr key = *GenerateMemberKey(type);
    const auto der = MemberKeyToDer(key.get());
    ASSERT_TRUE(der.ok()) << der.status();
    EXPECT_EQ(*der, RawDer(key.get()));
    EXPECT_EQ(*MemberKeyDerFromPem(*MemberKeyToPem(key.get())), *der);
    const auto read = MemberKeyFromDer(base::AsBytes(*der));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(EVP_PKEY_eq(read->get(), key.get()), 1);
  }
}

TEST(MemberKeyTest, NamesAKeyByItsHash) {
  const std::string der = *base::FromHex(kEd25519Der);
  EXPECT_EQ(MemberKeySelector(base::AsBytes(der)),
            "key:sha256:06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9");
}

TEST(MemberKeyTest, ACompressedPointIsTheSameKey) {
  const PkeyPtr key = Compressed();
  ASSERT_LT(RawDer(key.get()).size(), 91U);
  EXPECT_FALSE(MemberKeyFromDer(base::AsBytes(RawDer(key.get()))).ok());
  const auto der = MemberKeyToDer(key.get());
  ASSERT_TRUE(der.ok()) << der.status();
  EXPECT_EQ(der->size(), 91U);
  EXPECT_TRUE(MemberKeyFromDer(base::AsBytes(*der)).ok());
}

TEST(MemberKeyTest, RefusesEveryOtherKindOfKey) {
  for (const KeyType type : {KeyType::kP192, KeyType::kP224, KeyType::kP384, KeyType::kP521,
                             KeyType::kRsa1024, KeyType::kRsa2048}) {
    const PkeyPtr key = MakeKey(type);
    EXPECT_TRUE(absl::IsInvalidArgument(MemberKeyToDer(key.get()).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(MemberKeyToPem(key.get()).status()));
    EXPECT_TRUE(
        absl::IsInvalidArgument(MemberKeyFromDer(base::AsBytes(RawDer(key.get()))).status()));
    EXPECT_THAT(std::string(MemberKeyDerFromPem(PublicPem(key.get())).status().message()),
                HasSubstr("Ed25519 or P-256"));
  }
}

TEST(MemberKeyTest, RefusesBytesThatAreNotExactlyAKey) {
  const std::string ed25519 = *base::FromHex(kEd25519Der);
  const std::string p256 = *MemberKeyToDer(MakeKey(KeyType::kP256).get());
  std::string off_curve = p256;
  off_curve.back() = static_cast<char>(off_curve.back() ^ 1);
  std::string other_algorithm = ed25519;
  other_algorithm[8] = 0x6e;  // id-X25519
  for (const std::string& bytes :
       {std::string(), std::string(44, '\0'), std::string(91, '\0'), ed25519 + "x", p256 + "x",
        ed25519.substr(0, 43), p256.substr(0, 90), off_curve, other_algorithm,
        std::string(100000, '0')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(MemberKeyFromDer(base::AsBytes(bytes)).status()))
        << bytes.size();
  }
}

TEST(MemberKeyTest, AnOperatorGivesAPublicKeyOrACertificateForIt) {
  const TestCa ca;
  const auto minted = ca.Mint("spiffe://example.org/web");
  const std::string der = *MemberKeyToDer(minted.key.get());
  EXPECT_EQ(*MemberKeyDerFromPem(PublicPem(minted.key.get())), der);
  EXPECT_EQ(*MemberKeyDerFromPem("# a comment\n" + PublicPem(minted.key.get())), der);
  EXPECT_EQ(*MemberKeyDerFromPem(CertificateToPem(minted.leaf())), der);
  EXPECT_EQ(*MemberKeyDerFromPem(minted.ChainPem() + ca.RootPem()), der) << "the leaf's counts";
}

TEST(MemberKeyTest, SaysWhatIsWrongWithAText) {
  const PkeyPtr key = MakeKey(KeyType::kEd25519);
  const std::string pem = PublicPem(key.get());
  const auto why = [](const std::string& text) {
    const auto der = MemberKeyDerFromPem(text);
    EXPECT_TRUE(absl::IsInvalidArgument(der.status())) << text;
    return std::string(der.status().message());
  };
  const std::string private_pem = postern::testing::KeyPem(key.get());
  EXPECT_THAT(why(private_pem), HasSubstr("the member's alone"));
  EXPECT_THAT(why(private_pem), ::testing::Not(HasSubstr(private_pem.substr(30, 20))));
  EXPECT_THAT(why(pem + private_pem), HasSubstr("the member's alone"));
  EXPECT_THAT(why(pem + pem), HasSubstr("several"));
  EXPECT_THAT(why(pem + TestCa().RootPem()), HasSubstr("several"));
  EXPECT_THAT(why(""), HasSubstr("neither"));
  EXPECT_THAT(why("ssh-ed25519 AAAA me@here"), HasSubstr("neither"));
  EXPECT_THAT(why("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
              HasSubstr("does not parse"));
}

}  // namespace
}  // namespace postern::x509
