// SPDX-License-Identifier: Apache-2.0
// A proxy whose certificate the issuer takes no more shows what else it has, at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <string>

#include "common/x509/member_key.h"
#include "tests/unit/proxy/identity/issued_proxy.h"

namespace postern::identity {
namespace {

using ::testing::ElementsAre;
using testing::RunUntil;

class RevokedProxyTest : public IssuedProxyTest {
 protected:
  bool StartAndConnect() {
    issuer_.Start();
    Start();
    return Gets(1) && RunUntil(*loop_, [&] { return issuer_.open_streams() == 1; });
  }
  void GiveToken() {
    issuer_.AddToken("second", kWeb);
    dir_.Write("token", "second\n");
  }
  static v1::Revocation Serial(const std::string& serial) {
    v1::Revocation revocation;
    std::string bytes = base::FromHex(serial).value();
    bytes.erase(0, bytes.find_first_not_of('\0'));
    revocation.set_serial(bytes);
    revocation.set_sequence(2);
    revocation.set_reason("stolen");
    return revocation;
  }
};

TEST_F(RevokedProxyTest, ShowsItsTokenWhenItsStreamIsRefused) {
  ASSERT_TRUE(StartAndConnect());  // with a certificate of an hour
  GiveToken();
  issuer_.Refuse(issuer_.serials()[0]);
  ASSERT_TRUE(Gets(2));
  EXPECT_THAT(issuer_.requests(), ElementsAre("token", "token"));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
}

TEST_F(RevokedProxyTest, ShowsItsTokenAtOnceAlsoWhenItIsRefusedASecondTime) {
  ASSERT_TRUE(StartAndConnect());
  const std::string serial = issuer_.serials()[0];
  // Whatever it shows at first is answered with a minute's pause, longer than this test.
  issuer_.FailCertify(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy"));
  issuer_.SetRetryAfter(60'000);
  issuer_.Refuse(serial);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed == 1; }));
  issuer_.TakeAgain(serial);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  issuer_.FailCertify(std::nullopt);
  GiveToken();
  issuer_.Refuse(serial);
  EXPECT_TRUE(Gets(2));
}

TEST_F(RevokedProxyTest, ShowsItsTokenWhenItReadsOfItInTheList) {
  ASSERT_TRUE(StartAndConnect());
  GiveToken();
  issuer_.SetRevocations({Serial(issuer_.serials()[0])});
  ASSERT_TRUE(Gets(2));
  EXPECT_THAT(issuer_.requests(), ElementsAre("token", "token"));
}

TEST_F(RevokedProxyTest, ShowsItsMembersKey) {
  const x509::PkeyPtr key = testing::MakeKey(testing::KeyType::kEd25519);
  dir_.Write("member.pem", testing::KeyPem(key.get()));
  ASSERT_EQ(chmod(dir_.Path("member.pem").c_str(), 0600), 0);
  config_.member_key_file = dir_.Path("member.pem");
  config_.join_token_file.clear();
  issuer_.AddMember(x509::MemberKeySelector(base::AsBytes(x509::MemberKeyToDer(key.get()).value())),
                    kWeb);
  ASSERT_TRUE(StartAndConnect());
  issuer_.Refuse(issuer_.serials()[0]);
  ASSERT_TRUE(Gets(2));
  EXPECT_THAT(issuer_.requests(), ElementsAre("challenge", "member", "challenge", "member"));
}

TEST_F(RevokedProxyTest, DoesNotHammerTheIssuerWithATokenThatWasUsedUp) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.Refuse(issuer_.serials()[0]);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  testing::RunFor(*loop_, std::chrono::milliseconds(2500));
  EXPECT_LE(issuer_.requests().size(), 5U) << "1 s, 2 s, ... apart, give or take";
}

TEST_F(RevokedProxyTest, WithNothingElseToShowKeepsToItsSchedule) {
  ASSERT_TRUE(StartAndConnect());
  Stop();
  config_.join_token_file.clear();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return issuer_.open_streams() == 1; }));
  issuer_.Refuse(issuer_.serials()[0]);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !manager_->status().issuer_error.empty(); }));
  testing::RunFor(*loop_, std::chrono::milliseconds(1500));
  EXPECT_THAT(issuer_.requests(), ElementsAre("token"));
}

TEST_F(RevokedProxyTest, AnOperatorsWordRenewsAtOnce) {
  ASSERT_TRUE(StartAndConnect());
  manager_->Renew();
  ASSERT_TRUE(Gets(2));
  EXPECT_EQ(issuer_.requests().back(), "certificate " + issuer_.serials()[0]);
  manager_->Renew();
  manager_->Renew();  // the same request
  ASSERT_TRUE(Gets(3));
  EXPECT_EQ(issuer_.requests().size(), 3U);
}

}  // namespace
}  // namespace postern::identity
