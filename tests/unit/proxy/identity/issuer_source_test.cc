// SPDX-License-Identifier: Apache-2.0
// Identity from an issuer, through IdentityManager, against a fake issuer on loopback: getting a
// certificate, keeping it, and what goes wrong in between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/proxy/identity/issued_proxy.h"

namespace postern::identity {
namespace {

using ::testing::ElementsAre;
using testing::RunFor;
using testing::RunUntil;

class IssuerSourceTest : public IssuedProxyTest {};

TEST_F(IssuerSourceTest, GetsACertificateWithItsToken) {
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  EXPECT_EQ(snapshots_.back()->svid->id().uri(), kWeb);
  EXPECT_THAT(issuer_.requests(), ElementsAre("token"));
  EXPECT_EQ(manager_->gauges().renewals_ok, 1U);
  EXPECT_TRUE(manager_->HasUsableIdentity());
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  EXPECT_EQ(manager_->status().trust_domains, std::vector<std::string>{"example.org"});
}

TEST_F(IssuerSourceTest, KnowsTheIssuerByItsPinUntilItHasItsBundles) {
  config_.issuer_bundle_file.clear();
  const auto pin = x509::Sha256OfCertificate(issuer_.root().root());
  config_.issuer_pin = std::string(base::AsText(pin));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
}

TEST_F(IssuerSourceTest, RestartsWithoutATokenAndWithoutTheIssuer) {
  issuer_.Start();
  issuer_.SetPolicy({{"p", AllowFrom("db")}});
  Start();
  ASSERT_TRUE(Gets(1));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->HasPolicy(); }));
  const std::string serial = snapshots_.back()->svid->serial();
  Stop();
  issuer_.Stop();
  config_.join_token_file.clear();
  Start();
  // At once: without having heard from anybody.
  ASSERT_EQ(snapshots_.size(), 1U);
  EXPECT_EQ(snapshots_.back()->svid->serial(), serial);
  EXPECT_TRUE(Lets("db"));
  EXPECT_FALSE(Lets("other"));
  EXPECT_FALSE(manager_->status().issuer_connected);
  issuer_.Start();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  // It holds what it needs: nothing is sent again, and no certificate is asked for.
  EXPECT_EQ(issuer_.hellos().back().held_size(), 2);
  EXPECT_THAT(issuer_.requests(), ElementsAre("token"));
}

TEST_F(IssuerSourceTest, WaitsForAnIssuerThatComesUpLater) {
  issuer_.ReservePort();
  Start();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 2; }));
  EXPECT_FALSE(manager_->HasUsableIdentity());
  EXPECT_NE(manager_->status().renewal_error, "");
  issuer_.Start();
  EXPECT_TRUE(Gets(1));
  EXPECT_EQ(manager_->status().renewal_error, "");
}

TEST_F(IssuerSourceTest, RenewsWithItsCertificateBeforeTheOldOneEnds) {
  issuer_.SetTtl(absl::Seconds(4));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(4));
  EXPECT_EQ(issuer_.requests().front(), "token");
  const auto serials = issuer_.serials();
  for (size_t i = 1; i < issuer_.requests().size(); ++i) {
    EXPECT_EQ(issuer_.requests()[i], "certificate " + serials[i - 1]);
  }
  for (size_t i = 1; i < snapshots_.size(); ++i) {
    EXPECT_LT(snapshots_[i]->obtained, snapshots_[i - 1]->svid->not_after());
    EXPECT_EQ(snapshots_[i]->generation, i + 1);
  }
  EXPECT_NE(EVP_PKEY_eq(snapshots_[0]->svid->key(), snapshots_[1]->svid->key()), 1);
}

TEST_F(IssuerSourceTest, MakesItsStreamAnewWithEachCertificate) {
  issuer_.SetTtl(absl::Seconds(4));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(3));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return issuer_.stream_serials().size() >= 3; }));
  const auto serials = issuer_.serials();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(issuer_.stream_serials()[i], serials[i]);
  }
  // One at a time in the end, and never none in between.
  EXPECT_TRUE(RunUntil(*loop_, [&] { return issuer_.open_streams() == 1; }));
  EXPECT_TRUE(manager_->status().issuer_connected);
  // It resumes: what the first stream gave is held.
  EXPECT_EQ(issuer_.hellos().back().held_size(), 1);
}

TEST_F(IssuerSourceTest, ServesWhileTheIssuerIsAwayAndRecoversByItself) {
  issuer_.SetTtl(absl::Seconds(8));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  issuer_.Stop();
  // Past the renewal interval, within the lifetime.
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 2; }));
  EXPECT_TRUE(manager_->HasUsableIdentity());
  EXPECT_FALSE(manager_->status().issuer_connected);
  EXPECT_EQ(snapshots_.size(), 1U);
  issuer_.Start();
  EXPECT_TRUE(Gets(2));
  EXPECT_LT(snapshots_[1]->obtained, snapshots_[0]->svid->not_after());
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
}

TEST_F(IssuerSourceTest, FallsBackToANewTokenWhenItsCertificateHasExpired) {
  issuer_.SetTtl(absl::Seconds(2));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  issuer_.Stop();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !manager_->HasUsableIdentity(); }));
  issuer_.SetTtl(absl::Hours(1));
  issuer_.AddToken("second", kWeb);
  dir_.Write("token", "second\n");
  issuer_.Start();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->HasUsableIdentity(); }));
  EXPECT_EQ(issuer_.requests().back(), "token");
}

TEST_F(IssuerSourceTest, ReadsItsTokenFileAtEachAttempt) {
  dir_.Write("token", "wrong");
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_NE(manager_->status().renewal_error.find("no such token"), std::string::npos);
  dir_.Write("token", "  first \n");
  manager_->Reload();  // does not wait for the next attempt
  EXPECT_TRUE(Gets(1));
}

TEST_F(IssuerSourceTest, SaysWhichTokenFileItLacks) {
  config_.join_token_file = dir_.Path("nowhere");
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_NE(manager_->status().renewal_error.find("nowhere"), std::string::npos);
  EXPECT_TRUE(issuer_.requests().empty());
}

TEST_F(IssuerSourceTest, RefusesABadChainAndKeepsTheOldOne) {
  issuer_.SetTtl(absl::Seconds(6));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  issuer_.SignWithAForeignCa(true);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_EQ(snapshots_.size(), 1U);
  EXPECT_TRUE(manager_->HasUsableIdentity());
  EXPECT_NE(manager_->status().renewal_error.find("peer_untrusted"), std::string::npos);
  issuer_.SignWithAForeignCa(false);
  EXPECT_TRUE(Gets(2));
}

TEST_F(IssuerSourceTest, DoesNotSpeakToAnIssuerThatItDoesNotKnow) {
  dir_.Write("root.pem", testing::TestCa().RootPem());
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_NE(manager_->status().renewal_error.find("peer_untrusted"), std::string::npos);
  EXPECT_TRUE(issuer_.requests().empty());  // the token was not shown
}

TEST_F(IssuerSourceTest, RefusesTheIssuersOwnIdentity) {
  issuer_.AddToken("evil", "spiffe://example.org/postern/identity");
  dir_.Write("token", "evil");
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_TRUE(snapshots_.empty());
}

TEST_F(IssuerSourceTest, ComesBackWhenTheIssuerAsksItTo) {
  issuer_.FailCertify(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy"));
  issuer_.SetRetryAfter(60'000);
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed == 1; }));
  EXPECT_GT(manager_->status().next_renewal, absl::Now() + absl::Seconds(50));
  EXPECT_LT(manager_->status().next_renewal, absl::Now() + absl::Seconds(70));
}

TEST_F(IssuerSourceTest, MeasuresItsClockAgainstTheIssuers) {
  issuer_.SetClockOffset(-absl::Seconds(90));
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  EXPECT_NEAR(manager_->gauges().clock_skew_seconds, 90, 2);
}

TEST_F(IssuerSourceTest, DoesNotHammerTheIssuerWhenItsOwnClockIsFarAhead) {
  issuer_.SetClockOffset(-absl::Hours(3));  // certificates of an hour are over already
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().renewals_failed >= 1; }));
  EXPECT_TRUE(snapshots_.empty());
  EXPECT_NE(manager_->status().renewal_error.find("ahead of the issuer's"), std::string::npos)
      << manager_->status().renewal_error;
  RunFor(*loop_, std::chrono::milliseconds(1500));
  EXPECT_LE(issuer_.requests().size(), 4U);
}

TEST_F(IssuerSourceTest, CanBeStoppedInTheMiddleOfACall) {
  issuer_.SetCertifyDelay(absl::Seconds(3));
  issuer_.Start();
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !issuer_.requests().empty(); }));
  const absl::Time before = absl::Now();
  Stop();
  EXPECT_LT(absl::Now() - before, absl::Seconds(2));
}

TEST_F(IssuerSourceTest, BeginsAnewWhenTheConfiguredIssuerIsAnother) {
  issuer_.Start();
  Start();
  ASSERT_TRUE(Gets(1));
  Stop();
  // The old issuer's store was lost; another one stands in its place.
  fakes::FakeIssuer other;
  other.AddToken("third", kWeb);
  dir_.Write("token", "third");
  dir_.Write("root.pem", other.root().RootPem());
  other.Start();
  config_.issuer = other.target();
  Start();
  ASSERT_EQ(snapshots_.size(), 1U);  // the kept one serves meanwhile
  ASSERT_TRUE(Gets(2));
  EXPECT_EQ(other.requests().back(), "token");
  EXPECT_EQ(snapshots_.back()->svid->serial(), other.serials().front());
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  Stop();
}

TEST_F(IssuerSourceTest, RefusesAConfigurationWithoutAWayToKnowTheIssuer) {
  config_.issuer_bundle_file.clear();
  issuer_.Start();
  EXPECT_TRUE(absl::IsInvalidArgument(Make().status()));
  config_.issuer_bundle_file = dir_.Path("root.pem");
  config_.trust_domain.clear();
  EXPECT_TRUE(absl::IsInvalidArgument(Make().status()));
  config_.trust_domain = "other.org";
  EXPECT_TRUE(Make().ok());
}

}  // namespace
}  // namespace postern::identity
