// SPDX-License-Identifier: Apache-2.0
// A proxy's identity over outages, sleeps and clocks that are wrong, with the real issuer: what
// recovers by itself, and what is said meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/x509/certificate.h"
#include "control/service/issuer_process.h"
#include "proxy/identity/identity_manager.h"
#include "tests/fakes/shifted_clock.h"
#include "tests/integration/issuer_admin.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"

namespace postern {
namespace {

using identity::IdentityManager;
using ::testing::HasSubstr;
using testing::RunFor;
using testing::RunUntil;

// One proxy and one issuer, each on a machine with a clock of its own. Certificates live an hour.
class RenewalClockTest : public ::testing::Test {
 protected:
  RenewalClockTest() : loop_(net::Loop::Create().value()) {
    StartIssuer();
    proxy_.trust_domain = "example.org";
    proxy_.state_dir = dir_.Path("proxy");
    proxy_.join_token_file = dir_.Path("token");
    proxy_.issuer = "127.0.0.1:" + std::to_string(port_);
    MakeToken();
    proxy_.issuer_pin = Admin().RootPin();
  }
  ~RenewalClockTest() override {
    manager_.reset();
    issuer_.reset();
  }

  void StartIssuer() {
    service::IssuerConfig config{*x509::TrustDomain::Parse("example.org"), dir_.Path("issuer")};
    config.listen = {"127.0.0.1", port_};
    config.admin = {"127.0.0.1", 0};
    config.socket = dir_.Path("issuer.sock");
    issuer_ = service::IssuerProcess::Start(config, issuer_clock_).value();
    port_ = issuer_->grpc_port();
  }

  testing::IssuerAdmin Admin() const { return testing::IssuerAdmin(dir_.Path("issuer.sock")); }
  void MakeToken() { dir_.Write("token", Admin().CreateToken("spiffe://example.org/web")); }
  void StartProxy() {
    snapshots_ = 0;
    manager_ = IdentityManager::Create(proxy_, *loop_, proxy_clock_,
                                       {[this](const auto&) { ++snapshots_; }, [](const auto&) {}})
                   .value();
    manager_->Start();
  }
  // Both machines sleep, or stand in a cupboard.
  void Sleep(absl::Duration time) {
    issuer_clock_.Sleep(time);
    proxy_clock_.Sleep(time);
  }
  bool Becomes(bool usable) {
    return RunUntil(*loop_, [&] { return manager_->HasUsableIdentity() == usable; });
  }
  bool Renews(uint64_t count) {
    return RunUntil(*loop_, [&] { return manager_->status().renewals_ok >= count; });
  }

  const testing::TempDir dir_;
  fakes::ShiftedClock issuer_clock_;
  fakes::ShiftedClock proxy_clock_;
  std::unique_ptr<net::Loop> loop_;
  std::unique_ptr<service::IssuerProcess> issuer_;
  uint16_t port_ = 0;
  config::ProxyConfig proxy_;
  int snapshots_ = 0;
  std::unique_ptr<IdentityManager> manager_;
};

TEST_F(RenewalClockTest, ASleepOfADayPartIsFollowedByARenewalAtOnce) {
  StartProxy();
  ASSERT_TRUE(Renews(1));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  Sleep(absl::Minutes(20));  // the certificate is good for 40 more, and its renewal not due
  const absl::Time before = absl::Now();
  ASSERT_TRUE(Renews(2));
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
  EXPECT_EQ(manager_->status().renewals_failed, 0U);
}

TEST_F(RenewalClockTest, AJustExpiredCertificateRecoversByItselfWhenTheIssuerIsBack) {
  StartProxy();
  ASSERT_TRUE(Renews(1));
  ASSERT_TRUE(Becomes(true));  // with the first list of revocations
  std::filesystem::remove(dir_.Path("token"));
  issuer_.reset();
  Sleep(absl::Minutes(90));
  ASSERT_TRUE(Becomes(false));
  EXPECT_THAT(std::string(manager_->CheckUsable().message()), HasSubstr("expired 30m"));
  EXPECT_THAT(std::string(manager_->CheckUsable().message()),
              HasSubstr("this clock agrees with the issuer's"));
  StartIssuer();
  EXPECT_TRUE(Becomes(true));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
}

TEST_F(RenewalClockTest, SoDoesAProxyThatIsStartedAgainMeanwhile) {
  StartProxy();
  ASSERT_TRUE(Renews(1));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->HasPolicy(); }));
  const auto policy = manager_->status().policy_version;
  ASSERT_NE(policy.epoch, 0U);
  std::filesystem::remove(dir_.Path("token"));
  manager_.reset();
  issuer_.reset();
  Sleep(absl::Minutes(90));
  StartProxy();
  RunFor(*loop_, std::chrono::milliseconds(300));
  EXPECT_EQ(snapshots_, 0) << "an expired certificate is not published";
  EXPECT_FALSE(manager_->HasUsableIdentity());
  EXPECT_EQ(manager_->status().policy_version, policy) << "what was kept of it";
  StartIssuer();
  EXPECT_TRUE(Becomes(true));
  EXPECT_TRUE(manager_->HasPolicy());
}

TEST_F(RenewalClockTest, ALongExpiredCertificateSaysSoAndTakesANewToken) {
  StartProxy();
  ASSERT_TRUE(Renews(1));
  Sleep(absl::Hours(5));
  issuer_->Tick();  // its own certificate has ended as well
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    return manager_->status().renewal_error.find("the grace for renewing it is 1h") !=
           std::string::npos;
  })) << manager_->status().renewal_error;
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("{reason=\"long_expired\"}"));
  MakeToken();
  EXPECT_TRUE(Becomes(true));
}

TEST_F(RenewalClockTest, AClockThatIsSetForwardIsNoticedMeasuredAndFollowedByARenewal) {
  StartProxy();
  ASSERT_TRUE(Renews(1));
  proxy_clock_.SetAhead(absl::Minutes(7));
  const absl::Time before = absl::Now();
  ASSERT_TRUE(Renews(2));
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
  EXPECT_TRUE(manager_->HasUsableIdentity());
  EXPECT_NEAR(manager_->gauges().clock_skew_seconds, 420, 5);
  EXPECT_EQ(manager_->times().SkewRemark(), "; this clock is 7 min ahead of the issuer's");
}

TEST_F(RenewalClockTest, AClockThatIsBehindSaysHowFarAndRecoversWhenItIsPutRight) {
  StartProxy();
  ASSERT_TRUE(Renews(1));
  ASSERT_TRUE(Becomes(true));  // with the first list of revocations
  proxy_clock_.SetAhead(-absl::Minutes(10));
  ASSERT_TRUE(Becomes(false));
  const auto why = [this] { return std::string(manager_->CheckUsable().message()); };
  EXPECT_THAT(why(), HasSubstr("is not valid for another 7m"));
  // The clocks are compared once a second.
  EXPECT_TRUE(RunUntil(*loop_, [&] {
    return why().find("this clock is 10 min behind the issuer's") != std::string::npos;
  })) << why();
  // What the issuer makes is of the future as well; it says so, and does not hammer.
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_THAT(manager_->status().renewal_error, HasSubstr("10 min behind the issuer's"));
  EXPECT_NEAR(manager_->gauges().clock_skew_seconds, -600, 5);
  EXPECT_LE(manager_->status().renewals_failed, 5U);
  proxy_clock_.SetAhead(absl::ZeroDuration());
  EXPECT_TRUE(Becomes(true));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewal_error.empty(); }));
}

TEST_F(RenewalClockTest, AProxyThatStartsWithItsClockBehindDoesNotNeedASecondToken) {
  proxy_clock_.SetAhead(-absl::Minutes(10));
  StartProxy();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 2; }));
  EXPECT_THAT(manager_->status().renewal_error, HasSubstr("10 min behind the issuer's"));
  EXPECT_EQ(snapshots_, 0);
  manager_.reset();  // what it was given outlives it
  std::filesystem::remove(dir_.Path("token"));
  proxy_clock_.SetAhead(absl::ZeroDuration());
  StartProxy();
  EXPECT_TRUE(Becomes(true));
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("{reason=\"bad_token\"} 0\n"));
}

TEST_F(RenewalClockTest, AClockPastTheIssuersOwnCertificateIsNamedAsTheLikelyFault) {
  proxy_clock_.SetAhead(absl::Hours(48));
  StartProxy();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_THAT(manager_->status().renewal_error, HasSubstr("peer_expired"));
  EXPECT_THAT(manager_->status().renewal_error, HasSubstr("so this clock is ahead"));
}

TEST_F(RenewalClockTest, WhatIsKeptSaysHowOldItIsAlsoAfterARestart) {
  proxy_.max_stale = std::chrono::minutes(10);
  StartProxy();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  EXPECT_TRUE(manager_->CheckFresh().ok());
  EXPECT_LT(manager_->gauges().bundle_age_seconds, 20);
  issuer_.reset();
  manager_.reset();
  Sleep(absl::Minutes(8));
  StartProxy();
  EXPECT_NEAR(manager_->gauges().bundle_age_seconds, 480, 30);
  EXPECT_TRUE(manager_->CheckFresh().ok());
  Sleep(absl::Minutes(3));
  EXPECT_NEAR(manager_->gauges().bundle_age_seconds, 660, 30);
  EXPECT_TRUE(manager_->HasUsableIdentity());
  EXPECT_FALSE(manager_->CheckFresh().ok());
  EXPECT_TRUE(manager_->gauges().trust_is_stale);
  EXPECT_THAT(manager_->status().stale_error, HasSubstr("for 11 min, and --max-stale is 10m"));
  StartIssuer();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->CheckFresh().ok(); }));
  EXPECT_LT(manager_->gauges().bundle_age_seconds, 20);
  EXPECT_EQ(manager_->gauges().trust_ages.size(), 3U);
}

TEST_F(RenewalClockTest, TwoProxiesDoNotShareAStateDirectory) {
  StartProxy();
  const auto second = IdentityManager::Create(proxy_, *loop_, proxy_clock_,
                                              {[](const auto&) {}, [](const auto&) {}});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--state-dir: directory"));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use by another process"));
  manager_.reset();
  StartProxy();
  EXPECT_TRUE(Renews(1));
}

}  // namespace
}  // namespace postern
