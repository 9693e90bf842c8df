// SPDX-License-Identifier: Apache-2.0
// --max-stale, and the clock in what is said of a certificate's time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "proxy/identity/trust_clock.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class StaleTrustTest : public ::testing::Test {
 protected:
  static absl::Duration Now() { return base::Clock::System().SinceBoot(); }
  bool Echoes(Socket& socket) {
    socket.Send("x");
    return socket.ReadExactly(1) == "x";
  }

  identity::TrustClock times_{absl::Minutes(10)};
  ProxyPair pair_{&Echo};
};

TEST_F(StaleTrustTest, TheServersProxyTakesNobodyInAndKeepsWhoIsIn) {
  pair_.server.shared.times = &times_;
  times_.SetConfirmed(Now());
  pair_.Start();
  Socket open = pair_.Connect();
  ASSERT_TRUE(Echoes(open));
  times_.SetConfirmed(Now() - absl::Minutes(11));
  Socket late = pair_.Connect();
  late.Send("x");
  EXPECT_NE(Name(late.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kStaleTrust)) << pair_.server.Reasons();
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kRejectedByPeer)) << pair_.client.Reasons();
  EXPECT_THAT(pair_.server.Failures(), HasSubstr("for 11 min, and --max-stale is 10m"));
  EXPECT_TRUE(Echoes(open)) << "an open connection goes on";
  EXPECT_EQ(pair_.app.accepted(), 1);
  times_.SetConfirmed(Now());
  Socket again = pair_.Connect();
  EXPECT_TRUE(Echoes(again));
}

TEST_F(StaleTrustTest, TheClientsProxyDialsNobody) {
  pair_.client.shared.times = &times_;
  times_.SetConfirmed(Now() - absl::Minutes(11));
  pair_.Start();
  Socket late = pair_.Connect();
  EXPECT_NE(Name(late.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kStaleTrust)) << pair_.client.Reasons();
  EXPECT_EQ(pair_.server.Opened(), 0U);
  times_.SetConfirmed(Now());
  Socket again = pair_.Connect();
  EXPECT_TRUE(Echoes(again));
}

TEST_F(StaleTrustTest, AResumedSessionIsNoWayRound) {
  pair_.server.shared.times = &times_;
  times_.SetConfirmed(Now());
  pair_.Start();
  for (int i = 0; i < 2; ++i) {
    Socket socket = pair_.Connect();
    ASSERT_TRUE(Echoes(socket));
  }
  times_.SetConfirmed(Now() - absl::Minutes(11));
  Socket late = pair_.Connect();
  late.Send("x");
  EXPECT_NE(Name(late.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kStaleTrust)) << pair_.server.Reasons();
}

TEST_F(StaleTrustTest, EachErrorOfTimeNamesThisClock) {
  identity::TrustClock never_stale;
  never_stale.SetSkew(absl::Minutes(7));
  pair_.server.shared.times = &never_stale;
  pair_.Start();
  for (const bool early : {false, true}) {
    CertificateSpec spec = LeafSpec(kWeb);
    spec.not_before = absl::Now() + (early ? absl::Hours(1) : -absl::Hours(2));
    spec.not_after = spec.not_before + absl::Hours(1);
    const Minted minted = pair_.ca.Mint(spec);
    const RawTls peer(pair_.server.Connect(), {.certificate = &minted});
    const CloseReason reason = early ? CloseReason::kPeerNotYetValid : CloseReason::kPeerExpired;
    ASSERT_TRUE(pair_.server.AwaitClosed(reason)) << pair_.server.Reasons();
  }
  EXPECT_THAT(pair_.server.Failures(),
              ContainsRegex("expired 1h([0-9]+s)? ago; this clock is 7 min ahead of the issuer's"));
  EXPECT_THAT(pair_.server.Failures(), HasSubstr("; this clock is 7 min ahead of the issuer's"));
  never_stale.SetSkew(-absl::Minutes(10));
  pair_.server.PublishIdentity(pair_.ca.Issue(kDb, absl::Now() + absl::Minutes(10), absl::Hours(1)),
                               pair_.ca.BundleSet());
  Socket late = pair_.Connect();
  late.Send("x");
  EXPECT_NE(Name(late.DrainToEnd()), Name(ReadEnd::kEnd));
  ASSERT_TRUE(pair_.server.AwaitClosed(CloseReason::kNoIdentity)) << pair_.server.Reasons();
  EXPECT_THAT(pair_.server.Failures(), HasSubstr("; this clock is 10 min behind the issuer's"));
}

}  // namespace
}  // namespace postern::testing
