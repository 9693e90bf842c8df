// SPDX-License-Identifier: Apache-2.0
// A proxy that attests by its own key, through IdentityManager, against a fake issuer on loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/x509/member_key.h"
#include "tests/unit/proxy/identity/issued_proxy.h"

namespace postern::identity {
namespace {

using ::testing::ElementsAre;
using testing::KeyType;
using testing::MakeKey;
using testing::RunUntil;

class EnrolledProxyTest : public IssuedProxyTest {
 protected:
  EnrolledProxyTest() {
    config_.join_token_file.clear();
    config_.member_key_file = dir_.Path("member.pem");
    issuer_.AddMember(NewKey(), kWeb);
  }
  // Writes another key, and returns its selector.
  std::string NewKey(KeyType type = KeyType::kEd25519) {
    const x509::PkeyPtr key = MakeKey(type);
    dir_.Write("member.pem", testing::KeyPem(key.get()));
    EXPECT_EQ(chmod(dir_.Path("member.pem").c_str(), 0600), 0);
    return x509::MemberKeySelector(base::AsBytes(x509::MemberKeyToDer(key.get()).value()));
  }
};

TEST_F(EnrolledProxyTest, GetsACertificateWithItsKey) {
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  EXPECT_EQ(snapshots_.back()->svid->id().uri(), kWeb);
  EXPECT_THAT(issuer_.requests(), ElementsAre("challenge", "member"));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
}

TEST_F(EnrolledProxyTest, RenewsWithItsCertificateWhileItHasOne) {
  issuer_.SetTtl(absl::Seconds(4));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(2));
  EXPECT_EQ(issuer_.requests()[2], "certificate " + issuer_.serials()[0]);
}

TEST_F(EnrolledProxyTest, AttestsAgainByItselfWhenItsCertificateHasExpired) {
  issuer_.SetTtl(absl::Seconds(2));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  issuer_.Stop();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !manager_->HasUsableIdentity(); }));
  issuer_.SetTtl(absl::Hours(1));
  issuer_.Start();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->HasUsableIdentity(); }));
  EXPECT_EQ(issuer_.requests().back(), "member");
}

TEST_F(EnrolledProxyTest, NeedsNoStateDirectory) {
  config_.state_dir.clear();
  issuer_.Start();
  for (int i = 0; i < 2; ++i) {
    Start();
    ASSERT_TRUE(Gets(1));
    Stop();
  }
  EXPECT_THAT(issuer_.requests(), ElementsAre("challenge", "member", "challenge", "member"));
}

TEST_F(EnrolledProxyTest, TakesANewKeyIntoUseAtTheNextAttempt) {
  issuer_.RemoveMembers();
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  issuer_.AddMember(NewKey(KeyType::kP256), kWeb);
  manager_->Reload();  // does not wait for the next attempt
  EXPECT_TRUE(Gets(1));
}

TEST_F(EnrolledProxyTest, GoesOnWithATokenWhereItsKeyIsNotKnown) {
  config_.join_token_file = dir_.Path("token");
  issuer_.RemoveMembers();
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  EXPECT_THAT(issuer_.requests(), ElementsAre("challenge", "member", "token"));
}

TEST_F(EnrolledProxyTest, DoesNotAnswerAnIssuerThatCallsItselfAnother) {
  issuer_.CallItself("spiffe://example.com/postern/identity");
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_THAT(manager_->status().renewal_error, ::testing::HasSubstr("example.com"));
  EXPECT_THAT(issuer_.requests(), ElementsAre("challenge"));
}

TEST_F(EnrolledProxyTest, RefusesToStartWithAKeyThatOthersMayReadOrThatIsNone) {
  ASSERT_EQ(chmod(dir_.Path("member.pem").c_str(), 0644), 0);
  EXPECT_THAT(Make().status().ToString(), ::testing::HasSubstr("--member-key"));
  dir_.Write("member.pem", testing::KeyPem(MakeKey(KeyType::kRsa2048).get()));
  ASSERT_EQ(chmod(dir_.Path("member.pem").c_str(), 0600), 0);
  EXPECT_THAT(Make().status().ToString(), ::testing::HasSubstr("--member-key"));
  config_.member_key_file = dir_.Path("nowhere");
  EXPECT_THAT(Make().status().ToString(), ::testing::HasSubstr("--member-key"));
}

TEST_F(EnrolledProxyTest, SaysThatItsKeyHasBecomeReadableToOthers) {
  issuer_.RemoveMembers();
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  ASSERT_EQ(chmod(dir_.Path("member.pem").c_str(), 0644), 0);
  manager_->Reload();
  EXPECT_TRUE(RunUntil(*loop_, [&] {
    return manager_->status().renewal_error.find("chmod 600") != std::string::npos;
  }));
}

TEST_F(EnrolledProxyTest, CanBeStoppedInTheMiddleOfEitherCall) {
  issuer_.SetCertifyDelay(absl::Seconds(3));
  issuer_.Start();
  for (const size_t calls : {1U, 2U}) {
    Start();
    const size_t before = issuer_.requests().size();
    ASSERT_TRUE(RunUntil(*loop_, [&] { return issuer_.requests().size() >= before + calls; }));
    const absl::Time begun = absl::Now();
    Stop();
    EXPECT_LT(absl::Now() - begun, absl::Seconds(2));
  }
}

}  // namespace
}  // namespace postern::identity
