// SPDX-License-Identifier: Apache-2.0
#include "common/x509/trust_bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using testing::CertificateSpec;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::KeyType;
using ::testing::SizeIs;
using testing::TestCa;

TrustDomain Td(std::string_view name) {
  return TrustDomain::Parse(name).value();
}

std::string KeyJson(X509* root) {
  return R"({"use":"x509-svid","kty":"EC","crv":"P-256","x":"eA","y":"eQ","x5c":[")" +
         absl::Base64Escape(CertificateToDer(root)) + R"("]})";
}

class TrustBundleTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }

  absl::Status CreateWith(const CertificateSpec& spec) {
    std::vector<X509Ptr> roots;
    roots.push_back(TestCa("example.org", spec).Root());
    return TrustBundle::Create(Td("example.org"), std::move(roots)).status();
  }
  absl::StatusOr<TrustBundleSet> Read(std::string_view json) {
    return TrustBundleSet::FromSpiffeJson(json, Td("example.org"));
  }

  TestCa ca_;
};

TEST_F(TrustBundleTest, HoldsSeveralRootsOfOneTrustDomain) {
  const TestCa second("example.org");
  const absl::StatusOr<TrustBundle> bundle =
      TrustBundle::FromPem(Td("example.org"), "old\n" + ca_.RootPem() + "new\n" + second.RootPem());
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_THAT(bundle->roots(), SizeIs(2));
  EXPECT_EQ(bundle->trust_domain().name(), "example.org");
  EXPECT_NE(bundle->store(), nullptr);
}

TEST_F(TrustBundleTest, TakesTheSameRootTwice) {
  EXPECT_TRUE(TrustBundle::FromPem(Td("example.org"), ca_.RootPem() + ca_.RootPem()).ok());
}

TEST_F(TrustBundleTest, TakesAnIntermediateAsAnchor) {
  EXPECT_TRUE(
      TrustBundle::FromPem(Td("example.org"), CertificateToPem(ca_.Intermediate().certificate()))
          .ok());
}

TEST_F(TrustBundleTest, RefusesNoRootALeafAndAWeakRoot) {
  EXPECT_FALSE(TrustBundle::Create(Td("example.org"), {}).ok());
  CertificateSpec spec = testing::CaSpec("leaf");
  spec.ca = false;
  EXPECT_EQ(CreateWith(spec).code(), absl::StatusCode::kInvalidArgument);
  spec = testing::CaSpec("no certSign");
  spec.key_usage = "digitalSignature";
  EXPECT_EQ(CreateWith(spec).code(), absl::StatusCode::kInvalidArgument);
  for (const KeyType type : {KeyType::kRsa512, KeyType::kRsa1024, KeyType::kP192}) {
    spec = testing::CaSpec("weak root");
    spec.key_type = type;
    const absl::Status status = CreateWith(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr("root 1 of 'example.org'"));
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr("CN=weak root"));
  }
}

// `openssl req -x509` makes roots without a key usage.
TEST_F(TrustBundleTest, TakesARootWithoutKeyUsage) {
  CertificateSpec spec = testing::CaSpec("plain");
  spec.key_usage.reset();
  EXPECT_TRUE(CreateWith(spec).ok());
}

TEST_F(TrustBundleTest, FindsABundleByTheExactNameOnly) {
  const TestCa other("other.org");
  const TrustBundleSet set = testing::BundleSetOf({&ca_, &other});
  EXPECT_THAT(set.bundles(), SizeIs(2));
  ASSERT_NE(set.Find("example.org"), nullptr);
  EXPECT_EQ(X509_cmp(set.Find("example.org")->roots().front().get(), ca_.root()), 0);
  EXPECT_EQ(set.Find("example.org."), nullptr);
  EXPECT_EQ(set.Find("org"), nullptr);
  EXPECT_EQ(set.Find(""), nullptr);
  EXPECT_TRUE(TrustBundleSet().empty());
}

TEST_F(TrustBundleTest, WritesJsonThatItReadsAgain) {
  CertificateSpec rsa = testing::CaSpec("rsa");
  rsa.key_type = KeyType::kRsa2048;
  CertificateSpec ed = testing::CaSpec("ed");
  ed.key_type = KeyType::kEd25519;
  CertificateSpec p384 = testing::CaSpec("p384");
  p384.key_type = KeyType::kP384;
  const TestCa b("b.org", rsa);
  const TestCa c("c.org", ed);
  const TestCa d("d.org", p384);
  const TrustBundleSet set = testing::BundleSetOf({&ca_, &b, &c, &d});
  const std::string json = set.ToSpiffeJson();
  const absl::StatusOr<TrustBundleSet> again = Read(json);
  ASSERT_TRUE(again.ok()) << again.status() << json;
  for (const TestCa* ca : std::vector<const TestCa*>{&ca_, &b, &c, &d}) {
    const TrustBundle* bundle = again->Find(ca->trust_domain().name());
    ASSERT_NE(bundle, nullptr);
    EXPECT_EQ(X509_cmp(bundle->roots().front().get(), ca->root()), 0);
  }
  EXPECT_EQ(again->ToSpiffeJson(), json);
}

TEST_F(TrustBundleTest, WritesTheMembersThatOtherReadersNeed) {
  CertificateSpec rsa = testing::CaSpec("rsa");
  rsa.key_type = KeyType::kRsa2048;
  const TestCa b("b.org", rsa);
  const nlohmann::json map = nlohmann::json::parse(testing::BundleSetOf({&ca_, &b}).ToSpiffeJson());
  const nlohmann::json ec = map["trust_domains"]["example.org"]["keys"][0];
  EXPECT_EQ(ec["use"], "x509-svid");
  EXPECT_EQ(ec["kty"], "EC");
  EXPECT_EQ(ec["crv"], "P-256");
  EXPECT_EQ(ec["x"].get<std::string>().size(), 43U);
  EXPECT_EQ(ec["y"].get<std::string>().size(), 43U);
  EXPECT_EQ(ec["x5c"].size(), 1U);
  EXPECT_FALSE(ec.contains("kid"));
  const nlohmann::json second = map["trust_domains"]["b.org"]["keys"][0];
  EXPECT_EQ(second["kty"], "RSA");
  EXPECT_EQ(second["e"], "AQAB");
  EXPECT_EQ(second["n"].get<std::string>().size(), 342U);
  EXPECT_EQ(nlohmann::json::parse(TrustBundleSet().ToSpiffeJson()),
            nlohmann::json::parse(R"({"trust_domains":{}})"));
}

TEST_F(TrustBundleTest, TakesOneDocumentAsTheOwnTrustDomain) {
  const absl::StatusOr<TrustBundleSet> set =
      Read(R"({"spiffe_sequence":3,"spiffe_refresh_hint":300,"keys":[)" + KeyJson(ca_.root()) +
           R"(,{"use":"jwt-svid","kty":"EC","kid":"k1","crv":"P-256","x":"","y":""}]})");
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_NE(set->Find("example.org"), nullptr);
  EXPECT_THAT(set->Find("example.org")->roots(), SizeIs(1));
}

TEST_F(TrustBundleTest, IgnoresKeysOfUnknownUseOrType) {
  const absl::StatusOr<TrustBundleSet> set = Read(
      R"({"keys":[{"use":"X509-SVID","kty":"EC","x5c":["!"]},{"kty":"EC"},{"use":"x509-svid"},)"
      R"({"use":"wit-svid","kty":"EC"},{"use":7,"kty":[]},{"use":"x509-svid","kty":"oct"},3]})");
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE(set->empty());
}

TEST_F(TrustBundleTest, TrustsNothingWhenTheKeysAreEmpty) {
  EXPECT_TRUE(Read(R"({"keys":[]})")->empty());
  EXPECT_TRUE(Read(R"({"trust_domains":{"a":{"keys":[]}}})")->empty());
  EXPECT_TRUE(Read(R"({"trust_domains":{}})")->empty());
}

TEST_F(TrustBundleTest, RefusesBadJsonAndNamesTheTrustDomainAndKey) {
  const std::string good = KeyJson(ca_.root());
  const std::string key = R"({"use":"x509-svid","kty":"EC")";
  const std::pair<std::string, const char*> cases[] = {
      {"", "JSON"},
      {"{", "JSON"},
      {"[]", "keys"},
      {"null", "keys"},
      {"{}", "keys"},
      {R"({"keys":{}})", "keys"},
      {R"({"keys":null})", "keys"},
      {R"({"keys":[]} x)", "JSON"},
      {R"({"keys":[)" + key + R"(}]})", "bundle of 'example.org': key 1: x5c"},
      {R"({"keys":[)" + good + "," + key + R"(,"x5c":[]}]})", "key 2: x5c"},
      {R"({"keys":[)" + key + R"(,"x5c":["AA==","AA=="]}]})", "exactly one"},
      {R"({"keys":[)" + key + R"(,"x5c":"AA=="}]})", "exactly one"},
      {R"({"keys":[)" + key + R"(,"x5c":[1]}]})", "exactly one"},
      {R"({"keys":[)" + key + R"(,"x5c":["*"]}]})", "base64"},
      {R"({"keys":[)" + key + R"(,"x5c":["AA=="]}]})", "does not parse"},
      {R"({"keys":[],"keys":[]})", "stands twice"},
      {R"({"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}})", "stands twice"},
      {R"({"trust_domains":{"a":{"keys":[]},"spiffe://a":{"keys":[]}}})", "stands twice"},
      {R"({"trust_domains":{"A":{"keys":[]}}})", "trust domain"},
      {R"({"trust_domains":{"b":{}}})", "bundle of 'b'"},
      {R"({"trust_domains":{"b":[]}})", "bundle of 'b'"},
      {R"({"trust_domains":[]})", "object"},
      {R"({"trust_domains":{},"keys":[]})", "both"},
  };
  for (const auto& [json, problem] : cases) {
    const absl::StatusOr<TrustBundleSet> set = Read(json);
    ASSERT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(base::Message(set.status())), HasSubstr(problem)) << json;
  }
}

TEST_F(TrustBundleTest, SurvivesDeepNesting) {
  EXPECT_FALSE(Read(std::string(100'000, '[')).ok());
  EXPECT_FALSE(Read(std::string(100'000, '[') + std::string(100'000, ']')).ok());
  std::string objects;
  for (int i = 0; i < 50'000; ++i) {
    objects += R"({"a":)";
  }
  EXPECT_FALSE(Read(objects).ok());
}

TEST_F(TrustBundleTest, TellsPemFromJsonByTheFirstByte) {
  const TrustDomain own = Td("example.org");
  EXPECT_NE(TrustBundleSet::FromFileContent(ca_.RootPem(), own)->Find("example.org"), nullptr);
  EXPECT_NE(
      TrustBundleSet::FromFileContent("\r\n # roots\n" + ca_.RootPem(), own)->Find("example.org"),
      nullptr);
  EXPECT_NE(TrustBundleSet::FromFileContent(" \n" + ca_.BundleSet().ToSpiffeJson(), own)
                ->Find("example.org"),
            nullptr);
  EXPECT_FALSE(TrustBundleSet::FromFileContent("", own).ok());
  EXPECT_FALSE(TrustBundleSet::FromFileContent(" \n", own).ok());
  EXPECT_FALSE(TrustBundleSet::FromFileContent("roots", own).ok());
}

}  // namespace
}  // namespace postern::x509
