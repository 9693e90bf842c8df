// SPDX-License-Identifier: Apache-2.0
// A proxy without a list of revocations takes nobody, and tells why; with one it is back at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "common/base/strings.h"
#include "postern/v1/mesh.pb.h"
#include "tests/unit/proxy/identity/issued_proxy.h"

namespace postern::identity {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RunUntil;

constexpr char kOther[] = "spiffe://example.org/other";

class FirstRevocationsTest : public IssuedProxyTest {
 protected:
  void SetUp() override {
    issuer_.PromiseRevocations();
    issuer_.Start();
  }
  static v1::Revocation Other() {
    v1::Revocation revocation;
    revocation.set_spiffe_id(kOther);
    revocation.set_sequence(2);
    revocation.set_reason("stolen");
    return revocation;
  }
  // A certificate has come, and the stream stands.
  bool IsCertified() {
    return RunUntil(*loop_, [&] {
      return manager_->status().renewals_ok == 1 && manager_->status().issuer_connected;
    });
  }
  std::string WhyUnusable() const { return std::string(manager_->CheckUsable().message()); }
};

TEST_F(FirstRevocationsTest, TheFirstCertificateIsUsedWithTheFirstListAndNotBefore) {
  Start();
  ASSERT_TRUE(IsCertified());
  issuer_.SetBundles({});  // what else comes does not let it out
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    return manager_->status().confirmed[0].has_value() && issuer_.acks().size() >= 1;
  }));
  EXPECT_THAT(snapshots_, IsEmpty());
  EXPECT_FALSE(manager_->HasUsableIdentity());
  EXPECT_THAT(WhyUnusable(), HasSubstr("first list of revocations has not come"));
  issuer_.SetRevocations({Other()});
  ASSERT_TRUE(Gets(1));
  EXPECT_TRUE(manager_->HasUsableIdentity());
  ASSERT_FALSE(revocations_.empty());
  EXPECT_EQ(identities_before_revocations_.front(), 0U);
  EXPECT_NE(revocations_.front()->Find(x509::RevokedBy::kSpiffeId, kOther), nullptr);
}

TEST_F(FirstRevocationsTest, AnEmptyListIsAList) {
  issuer_.SetRevocations({});
  Start();
  EXPECT_TRUE(Gets(1));
}

TEST_F(FirstRevocationsTest, AListThatIsRefusedIsNone) {
  const testing::TestCa stranger;
  const testing::TestCa foreign = stranger.Intermediate();
  issuer_.SetRevocations({Other()}, &foreign);
  Start();
  ASSERT_TRUE(IsCertified());
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    return WhyUnusable().find("refused: ") != std::string::npos;
  })) << WhyUnusable();
  EXPECT_THAT(snapshots_, IsEmpty());
  issuer_.SetRevocations({});
  EXPECT_TRUE(Gets(1));
}

TEST_F(FirstRevocationsTest, ARestartWithAKeptListNeedsNoIssuer) {
  issuer_.SetRevocations({Other()});
  Start();
  ASSERT_TRUE(Gets(1));
  Stop();
  issuer_.Stop();
  Start();
  EXPECT_EQ(snapshots_.size(), 1U);
  EXPECT_EQ(identities_before_revocations_.front(), 0U);
}

TEST_F(FirstRevocationsTest, ARestartWithoutOneWaitsForTheIssuer) {
  Start();
  ASSERT_TRUE(IsCertified());
  Stop();
  issuer_.Stop();
  Start();
  EXPECT_THAT(snapshots_, IsEmpty());
  EXPECT_THAT(WhyUnusable(), HasSubstr("first list of revocations has not come"));
  issuer_.SetRevocations({});
  issuer_.Start();
  EXPECT_TRUE(Gets(1));
}

TEST_F(FirstRevocationsTest, LaterCertificatesDoNotWait) {
  issuer_.SetTtl(absl::Seconds(4));
  issuer_.SetRevocations({});
  Start();
  EXPECT_TRUE(Gets(3));
}

}  // namespace
}  // namespace postern::identity
