// SPDX-License-Identifier: Apache-2.0
// One SPIFFE bundle document, as bundle endpoints serve it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using testing::TestCa;

class SpiffeBundleTest : public ::testing::Test {
 protected:
  std::string Written() const {
    return SpiffeBundleToJson(ca_.Bundle(), uint64_t{1} << 50, absl::Minutes(5));
  }
  absl::StatusOr<SpiffeBundle> Read(std::string_view json) const {
    return SpiffeBundleFromJson(json, ca_.trust_domain());
  }
  std::string RefusalOf(std::string_view json) const {
    const absl::StatusOr<SpiffeBundle> read = Read(json);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << json;
    return std::string(base::Message(read.status()));
  }
  // The document with one member set.
  std::string With(const char* member, const nlohmann::json& value) const {
    nlohmann::json document = nlohmann::json::parse(Written());
    document[member] = value;
    return document.dump();
  }

  TestCa ca_;
};

TEST_F(SpiffeBundleTest, ReadsWhatItWrites) {
  const absl::StatusOr<SpiffeBundle> read = Read(Written());
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_TRUE(read->bundle.has_value());
  EXPECT_EQ(read->bundle->trust_domain(), ca_.trust_domain());
  EXPECT_EQ(X509_cmp(read->bundle->roots().front().get(), ca_.root()), 0);
  EXPECT_EQ(read->sequence, uint64_t{1} << 50);
  EXPECT_EQ(read->refresh_hint, absl::Minutes(5));
}

TEST_F(SpiffeBundleTest, WritesExactlyOneCertificateForEachKeyAndNoTrustDomain) {
  const nlohmann::json document = nlohmann::json::parse(Written());
  EXPECT_FALSE(document.contains("trust_domains"));
  ASSERT_THAT(document["keys"], SizeIs(1));
  const nlohmann::json& key = document["keys"][0];
  EXPECT_EQ(key["use"], "x509-svid");
  EXPECT_EQ(key["kty"], "EC");
  EXPECT_EQ(key["crv"], "P-256");
  EXPECT_THAT(key["x5c"], SizeIs(1));
  EXPECT_FALSE(key.contains("kid"));
  EXPECT_EQ(document["spiffe_sequence"], uint64_t{1} << 50);
  EXPECT_EQ(document["spiffe_refresh_hint"], 300);
}

TEST_F(SpiffeBundleTest, SequenceAndHintMayBeMissing) {
  const absl::StatusOr<SpiffeBundle> read =
      Read(SpiffeBundleToJson(ca_.Bundle(), std::nullopt, std::nullopt));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->sequence.has_value());
  EXPECT_FALSE(read->refresh_hint.has_value());
  EXPECT_FALSE(Read(With("spiffe_refresh_hint", 0))->refresh_hint.has_value());
  EXPECT_TRUE(Read(With("spiffe_refresh_hint", UINT64_MAX))->refresh_hint.has_value());
}

TEST_F(SpiffeBundleTest, AnEmptyListOfKeysTrustsNothingAndNoListIsAnError) {
  const absl::StatusOr<SpiffeBundle> empty = Read(R"({"keys":[],"spiffe_sequence":7})");
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_FALSE(empty->bundle.has_value());
  EXPECT_EQ(empty->sequence, 7U);
  EXPECT_THAT(RefusalOf(R"({"spiffe_sequence":7})"), HasSubstr("keys"));
  // What other uses have there is passed over.
  const absl::StatusOr<SpiffeBundle> jwt =
      Read(R"({"keys":[{"use":"jwt-svid","kty":"EC","kid":"1"}]})");
  ASSERT_TRUE(jwt.ok()) << jwt.status();
  EXPECT_FALSE(jwt->bundle.has_value());
}

TEST_F(SpiffeBundleTest, ADocumentCannotChooseItsTrustDomain) {
  EXPECT_THAT(RefusalOf(ca_.BundleSet().ToSpiffeJson()), HasSubstr("map of trust domains"));
  EXPECT_THAT(RefusalOf(With("trust_domains", nlohmann::json::object())),
              HasSubstr("map of trust domains"));
}

TEST_F(SpiffeBundleTest, RefusesWhatIsNoNumberOfItsRange) {
  for (const nlohmann::json& bad :
       {nlohmann::json(-1), nlohmann::json("5"), nlohmann::json(1.5), nlohmann::json(nullptr)}) {
    EXPECT_THAT(RefusalOf(With("spiffe_sequence", bad)), HasSubstr("spiffe_sequence"));
    EXPECT_THAT(RefusalOf(With("spiffe_refresh_hint", bad)), HasSubstr("spiffe_refresh_hint"));
  }
}

TEST_F(SpiffeBundleTest, RefusesBadJsonAndTooManyRoots) {
  RefusalOf("");
  RefusalOf("[]");
  RefusalOf(Written().substr(0, 100));
  RefusalOf(R"({"keys":[],"keys":[]})");
  nlohmann::json document = nlohmann::json::parse(Written());
  for (size_t i = 0; i < kMaxRootsOfDocument; ++i) {
    document["keys"].push_back(document["keys"][0]);
  }
  EXPECT_THAT(RefusalOf(document.dump()), HasSubstr("more than 64 roots"));
}

}  // namespace
}  // namespace postern::x509
