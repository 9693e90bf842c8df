// SPDX-License-Identifier: Apache-2.0
#include "common/x509/ca_statement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <string>

#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using postern::testing::CaSpec;
using postern::testing::CertificateSpec;
using postern::testing::KeyType;
using postern::testing::Minted;
using postern::testing::TestCa;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr std::string_view kStatement = "what a CA says";

std::string Sign(EVP_PKEY* key, std::string_view data) {
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  const EVP_MD* const digest = EVP_PKEY_is_a(key, "ED25519") == 1 ? nullptr : EVP_sha256();
  size_t size = 0;
  const base::ByteSpan bytes = base::AsBytes(data);
  EXPECT_EQ(EVP_DigestSignInit(context, nullptr, digest, nullptr, key), 1);
  EXPECT_EQ(EVP_DigestSign(context, nullptr, &size, bytes.data(), bytes.size()), 1);
  std::string signature(size, '\0');
  EXPECT_EQ(EVP_DigestSign(context, reinterpret_cast<unsigned char*>(signature.data()), &size,
                           bytes.data(), bytes.size()),
            1);
  EVP_MD_CTX_free(context);
  signature.resize(size);
  return signature;
}

absl::StatusOr<std::vector<base::Sha256Digest>> Verify(std::string_view data,
                                                       const std::string& signature,
                                                       const std::vector<X509Ptr>& chain,
                                                       const TestCa& trusted,
                                                       absl::Time now = absl::Now()) {
  return VerifyCaStatement(base::AsBytes(data), base::AsBytes(signature), chain, trusted.Bundle(),
                           now);
}

class CaStatementTest : public ::testing::Test {
 protected:
  const TestCa root_;
  const TestCa issuing_ = root_.Intermediate();
};

TEST_F(CaStatementTest, HoldsWhenACaOfTheTrustDomainSigned) {
  const auto path =
      Verify(kStatement, Sign(issuing_.key(), kStatement), issuing_.Intermediates(), root_);
  ASSERT_TRUE(path.ok()) << path.status();
  ASSERT_THAT(*path, SizeIs(2));
  EXPECT_EQ(path->front(), Sha256OfCertificate(issuing_.certificate()));
  EXPECT_EQ(path->back(), Sha256OfCertificate(root_.root()));
}

TEST_F(CaStatementTest, HoldsForEachKindOfKey) {
  for (const KeyType type : {KeyType::kP384, KeyType::kEd25519, KeyType::kRsa2048}) {
    CertificateSpec spec = CaSpec("issuing");
    spec.key_type = type;
    const TestCa issuing = root_.Intermediate(spec);
    const auto path =
        Verify(kStatement, Sign(issuing.key(), kStatement), issuing.Intermediates(), root_);
    EXPECT_TRUE(path.ok()) << path.status();
  }
}

TEST_F(CaStatementTest, EveryChangedByteBreaksIt) {
  const std::string signature = Sign(issuing_.key(), kStatement);
  std::string other(kStatement);
  other.back() ^= 1;
  EXPECT_THAT(
      std::string(Verify(other, signature, issuing_.Intermediates(), root_).status().message()),
      HasSubstr("signature"));
  std::string broken = signature;
  broken[broken.size() / 2] ^= 1;
  EXPECT_FALSE(Verify(kStatement, broken, issuing_.Intermediates(), root_).ok());
  EXPECT_FALSE(Verify(kStatement, "", issuing_.Intermediates(), root_).ok());
}

TEST_F(CaStatementTest, ACaOfAnotherRootIsRefused) {
  const TestCa stranger;
  const TestCa foreign = stranger.Intermediate();
  EXPECT_THAT(std::string(Verify(kStatement, Sign(foreign.key(), kStatement),
                                 foreign.Intermediates(), root_)
                              .status()
                              .message()),
              HasSubstr("leads to no root"));
}

TEST_F(CaStatementTest, AWorkloadsCertificateSignsNothing) {
  const Minted leaf = issuing_.Mint("spiffe://example.org/web");
  const auto path = Verify(kStatement, Sign(leaf.key.get(), kStatement), leaf.chain, root_);
  EXPECT_THAT(std::string(path.status().message()), HasSubstr("no CA"));
}

TEST_F(CaStatementTest, AnExpiredCaIsRefused) {
  CertificateSpec spec = CaSpec("short");
  spec.not_after = absl::Now() - absl::Minutes(1);
  const TestCa expired = root_.Intermediate(spec);
  EXPECT_FALSE(
      Verify(kStatement, Sign(expired.key(), kStatement), expired.Intermediates(), root_).ok());
}

TEST_F(CaStatementTest, WithoutAChainThereIsNoSigner) {
  EXPECT_TRUE(absl::IsUnauthenticated(
      Verify(kStatement, Sign(issuing_.key(), kStatement), {}, root_).status()));
}

}  // namespace
}  // namespace postern::x509
