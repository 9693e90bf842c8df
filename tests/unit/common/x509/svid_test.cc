// SPDX-License-Identifier: Apache-2.0
#include "common/x509/svid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include <functional>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using testing::CertificateSpec;
using ::testing::HasSubstr;
using testing::LeafSpec;
using testing::Minted;
using testing::TestCa;

constexpr std::string_view kWeb = "spiffe://example.org/web";

absl::StatusOr<Svid> Load(Minted minted) {
  return Svid::Create(std::move(minted.chain), std::move(minted.key));
}

class SvidTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }

  TestCa ca_;
};

TEST_F(SvidTest, KnowsItsFacts) {
  const TestCa intermediate = ca_.Intermediate();
  const Svid svid = intermediate.Issue(kWeb);
  EXPECT_EQ(svid.id().uri(), kWeb);
  EXPECT_EQ(svid.chain().size(), 2U);
  EXPECT_EQ(svid.serial(), SerialHex(svid.leaf()));
  EXPECT_EQ(svid.not_before(), NotBefore(svid.leaf()));
  EXPECT_EQ(svid.not_after(), NotAfter(svid.leaf()));
  EXPECT_NE(svid.key(), nullptr);
}

TEST_F(SvidTest, EndsWithTheFirstCertificateOfItsChain) {
  CertificateSpec spec = testing::CaSpec("short");
  spec.not_after = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now() + absl::Minutes(5)));
  const Svid svid = ca_.Intermediate(spec).Issue(kWeb);
  EXPECT_EQ(svid.not_after(), spec.not_after);
}

TEST_F(SvidTest, ReadsPem) {
  const Minted minted = ca_.Intermediate().Mint(kWeb);
  const absl::StatusOr<Svid> svid = Svid::FromPem(minted.ChainPem(), minted.KeyPem());
  ASSERT_TRUE(svid.ok()) << svid.status();
  EXPECT_EQ(svid->id().uri(), kWeb);
  EXPECT_FALSE(Svid::FromPem("", minted.KeyPem()).ok());
  EXPECT_FALSE(Svid::FromPem(minted.ChainPem(), "").ok());
}

TEST_F(SvidTest, TakesEachStrongKindOfKey) {
  for (const testing::KeyType type :
       {testing::KeyType::kP384, testing::KeyType::kEd25519, testing::KeyType::kRsa2048}) {
    CertificateSpec spec = LeafSpec(kWeb);
    spec.key_type = type;
    const absl::StatusOr<Svid> svid = Load(ca_.Mint(spec));
    EXPECT_TRUE(svid.ok()) << svid.status();
  }
}

TEST_F(SvidTest, RefusesAKeyOfAnotherCertificate) {
  Minted minted = ca_.Mint(kWeb);
  minted.key = testing::MakeKey();
  const absl::Status status = Load(std::move(minted)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("does not belong"));
}

// A key file whose public half fits the certificate and whose private half does not.
TEST_F(SvidTest, RefusesAKeyThatOnlyLooksAsIfItFitted) {
  Minted minted = ca_.Mint(kWeb);
  const PkeyPtr other = testing::MakeKey();
  unsigned char* right = nullptr;
  unsigned char* wrong = nullptr;
  const int size = i2d_PrivateKey(minted.key.get(), &right);
  ASSERT_EQ(i2d_PrivateKey(other.get(), &wrong), size);
  // SEC1: SEQUENCE, INTEGER 1, OCTET STRING of 32 bytes at offset 7.
  std::copy(wrong + 7, wrong + 7 + 32, right + 7);
  const unsigned char* at = right;
  minted.key.reset(d2i_PrivateKey(EVP_PKEY_EC, nullptr, &at, size));
  OPENSSL_free(right);
  OPENSSL_free(wrong);
  if (minted.key == nullptr) {
    GTEST_SKIP() << "this OpenSSL notices it by itself";
  }
  ERR_clear_error();
  EXPECT_FALSE(Load(std::move(minted)).ok());
}

struct BadLeaf {
  const char* what;
  std::function<void(CertificateSpec&)> spoil;
};

TEST_F(SvidTest, RefusesEachKindOfBadLeaf) {
  const std::vector<BadLeaf> cases = {
      {"no URI", [](CertificateSpec& s) { s.uris.clear(); }},
      {"two URIs", [](CertificateSpec& s) { s.uris.push_back("spiffe://example.org/b"); }},
      {"a trust domain's ID", [](CertificateSpec& s) { s.uris = {"spiffe://example.org"}; }},
      {"CA:TRUE", [](CertificateSpec& s) { s.ca = true; }},
      {"no key usage", [](CertificateSpec& s) { s.key_usage.reset(); }},
      {"no digitalSignature", [](CertificateSpec& s) { s.key_usage = "keyEncipherment"; }},
      {"keyCertSign", [](CertificateSpec& s) { s.key_usage = "digitalSignature,keyCertSign"; }},
      {"cRLSign", [](CertificateSpec& s) { s.key_usage = "digitalSignature,cRLSign"; }},
      {"no EKU", [](CertificateSpec& s) { s.extended_key_usage.reset(); }},
      {"an empty EKU", [](CertificateSpec& s) { s.extended_key_usage = ""; }},
      {"only serverAuth", [](CertificateSpec& s) { s.extended_key_usage = "serverAuth"; }},
      {"only clientAuth", [](CertificateSpec& s) { s.extended_key_usage = "clientAuth"; }},
      {"anyExtendedKeyUsage",
       [](CertificateSpec& s) { s.extended_key_usage = "anyExtendedKeyUsage"; }},
      {"RSA-1024", [](CertificateSpec& s) { s.key_type = testing::KeyType::kRsa1024; }},
      {"P-192", [](CertificateSpec& s) { s.key_type = testing::KeyType::kP192; }},
  };
  for (const BadLeaf& bad : cases) {
    CertificateSpec spec = LeafSpec(kWeb);
    bad.spoil(spec);
    EXPECT_EQ(Load(ca_.Mint(spec)).status().code(), absl::StatusCode::kInvalidArgument) << bad.what;
  }
}

TEST_F(SvidTest, TakesALeafWithoutBasicConstraints) {
  CertificateSpec spec = LeafSpec(kWeb);
  spec.ca.reset();
  EXPECT_TRUE(Load(ca_.Mint(spec)).ok());
}

TEST_F(SvidTest, RefusesBadIntermediates) {
  CertificateSpec spec = testing::CaSpec("no CA");
  spec.ca = false;
  EXPECT_FALSE(Load(ca_.Intermediate(spec).Mint(kWeb)).ok());
  spec = testing::CaSpec("no certSign");
  spec.key_usage = "digitalSignature";
  EXPECT_FALSE(Load(ca_.Intermediate(spec).Mint(kWeb)).ok());
  spec = testing::CaSpec("weak");
  spec.key_type = testing::KeyType::kRsa1024;
  EXPECT_FALSE(Load(ca_.Intermediate(spec).Mint(kWeb)).ok());
}

TEST_F(SvidTest, RefusesAnIntermediateThatDidNotIssueTheLeaf) {
  Minted minted = ca_.Intermediate().Mint(kWeb);
  minted.chain[1] = ShareX509(ca_.Intermediate().certificate());  // same name, another key
  const absl::Status status = Load(std::move(minted)).status();
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("issued the leaf"));
}

TEST_F(SvidTest, RefusesAnEmptyOrEndlessChain) {
  EXPECT_FALSE(Svid::Create({}, testing::MakeKey()).ok());
  Minted minted = ca_.Mint(kWeb);
  EXPECT_FALSE(Svid::Create(std::move(minted.chain), nullptr).ok());
  minted = ca_.Mint(kWeb);
  for (int i = 0; i < 5; ++i) {
    minted.chain.push_back(ca_.Root());
  }
  EXPECT_FALSE(Load(std::move(minted)).ok());
}

TEST_F(SvidTest, SaysByHowMuchItIsOutsideItsValidity) {
  const fakes::FakeClock clock;
  const Svid svid = ca_.Issue(kWeb, clock.Now(), absl::Hours(1));
  EXPECT_TRUE(svid.CheckUsable(clock.Now()).ok());
  EXPECT_TRUE(svid.CheckUsable(svid.not_before()).ok());
  EXPECT_TRUE(svid.CheckUsable(svid.not_after() - absl::Seconds(1)).ok());
  EXPECT_FALSE(svid.CheckUsable(svid.not_after()).ok());
  const absl::Status late = svid.CheckUsable(svid.not_after() + absl::Seconds(95));
  EXPECT_EQ(late.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(late)), HasSubstr("expired 1m35s ago"));
  const absl::Status early = svid.CheckUsable(svid.not_before() - absl::Minutes(3));
  EXPECT_EQ(early.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(early)), HasSubstr("not valid for another 3m"));
}

TEST_F(SvidTest, IsUnusableOnceAnIntermediateExpired) {
  const fakes::FakeClock clock;
  CertificateSpec spec = testing::CaSpec("short");
  spec.not_after = clock.Now() + absl::Minutes(1);
  const Svid svid = ca_.Intermediate(spec).Issue(kWeb, clock.Now(), absl::Hours(1));
  EXPECT_TRUE(svid.CheckUsable(clock.Now()).ok());
  const absl::Status status = svid.CheckUsable(clock.Now() + absl::Minutes(2));
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("certificate 2"));
}

}  // namespace
}  // namespace postern::x509
