// SPDX-License-Identifier: Apache-2.0
// Revocation between two proxies: new connections, open ones and sessions, on both sides.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/x509/certificate.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"
#include "tests/testing/test_crl.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using ::testing::HasSubstr;
using x509::RevokedBy;

x509::Revocation Of(RevokedBy by, std::string_view subject) {
  x509::Revocation revocation{.by = by, .sequence = 17, .reason = "laptop stolen"};
  revocation.subject = x509::CanonicalSubject(by, subject).value();
  revocation.revoked_at = absl::Now();
  return revocation;
}

std::string Exchange(Socket& socket, std::string_view text) {
  socket.Send(text);
  return socket.ReadExactly(text.size());
}

class RevocationTest : public ::testing::Test {
 protected:
  void SetUp() override { pair_.Start(); }

  ProxyPair pair_{&Echo};
};

TEST_F(RevocationTest, TheServerCutsTheOpenConnectionOfARevokedClientAndTakesNoOther) {
  Socket socket = pair_.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  pair_.server.PublishRevocations({Of(RevokedBy::kSpiffeId, kWeb)});
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPeerRevoked)) << pair_.server.Reasons();
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kRejectedByPeer)) << pair_.client.Reasons();
  Socket again = pair_.Connect();
  again.Send("x");
  EXPECT_EQ(Name(again.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPeerRevoked, 2)) << pair_.server.Reasons();
  EXPECT_THAT(pair_.server.Failures(), HasSubstr("laptop stolen"));
  EXPECT_THAT(pair_.server.Failures(), HasSubstr("revocation 17"));
  EXPECT_EQ(pair_.server.Resumed(), 0U);

  pair_.server.PublishRevocations({});
  Socket lifted = pair_.Connect();
  EXPECT_EQ(Exchange(lifted, "after"), "after");
}

TEST_F(RevocationTest, TheClientCutsTheOpenConnectionToARevokedServerAndMakesNoOther) {
  Socket socket = pair_.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  pair_.client.PublishRevocations({Of(RevokedBy::kSpiffeId, kDb)});
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kPeerRevoked)) << pair_.client.Reasons();
  Socket again = pair_.Connect();
  again.Send("x");
  EXPECT_EQ(Name(again.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kPeerRevoked, 2)) << pair_.client.Reasons();
}

TEST_F(RevocationTest, OthersGoOnAndOnlyTheirTicketsAreLost) {
  for (int i = 0; i < 2; ++i) {
    Socket socket = pair_.Connect();
    ASSERT_EQ(Exchange(socket, "visit"), "visit");
  }
  ASSERT_EQ(pair_.server.Resumed(), 1U);
  Socket open = pair_.Connect();
  ASSERT_EQ(Exchange(open, "before"), "before");
  pair_.server.PublishRevocations({Of(RevokedBy::kSpiffeId, "spiffe://example.org/else")});
  EXPECT_EQ(Exchange(open, "after"), "after");
  const uint64_t resumed = pair_.server.Resumed();
  Socket fresh = pair_.Connect();
  ASSERT_EQ(Exchange(fresh, "full"), "full");
  EXPECT_EQ(pair_.server.Resumed(), resumed);
  EXPECT_EQ(pair_.server.Refused(telemetry::TicketRefusal::kChanged), 1U);
  Socket next = pair_.Connect();
  ASSERT_EQ(Exchange(next, "again"), "again");
  EXPECT_EQ(pair_.server.Resumed(), resumed + 1);
  EXPECT_EQ(pair_.server.Closed(CloseReason::kPeerRevoked), 0U);
}

TEST_F(RevocationTest, AResumedConnectionIsCutByTheFactsOfItsFullHandshake) {
  {
    Socket socket = pair_.Connect();
    ASSERT_EQ(Exchange(socket, "first"), "first");
  }
  Socket resumed = pair_.Connect();
  ASSERT_EQ(Exchange(resumed, "second"), "second");
  ASSERT_EQ(pair_.server.Resumed(), 1U);
  pair_.server.PublishRevocations(
      {Of(RevokedBy::kIssuer, base::ToHex(x509::Sha256OfCertificate(pair_.ca.root())))});
  EXPECT_EQ(Name(resumed.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPeerRevoked)) << pair_.server.Reasons();
}

// A peer whose certificates a CRL can name: a foreign team's CA below the same root.
class CrlTest : public RevocationTest {
 protected:
  std::shared_ptr<const x509::Crl> Crl(const CrlSpec& spec) const {
    return x509::VerifyCrl(MakeCrl(team_, spec).get(), "team.crl", team_.Intermediates()).value();
  }
  bool Visits(const Minted& who) {
    RawTls peer(pair_.server.Connect(), {.certificate = &who});
    peer.Send("in");
    const bool in = peer.ReadExactly(2) == "in";
    alert_ = peer.alert();
    return in;
  }

  const TestCa team_ = pair_.ca.Intermediate();
  const Minted web_ = team_.Mint(kWeb);
  int alert_ = -1;
};

TEST_F(CrlTest, RefusesAndCutsWhatItLists) {
  RawTls open(pair_.server.Connect(), {.certificate = &web_});
  open.Send("in");
  ASSERT_EQ(open.ReadExactly(2), "in");
  pair_.server.PublishRevocations({}, {Crl({.serials = {x509::SerialHex(web_.leaf())}})});
  EXPECT_EQ(open.Read(1), "");
  EXPECT_EQ(open.alert(), 44);
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPeerRevoked)) << pair_.server.Reasons();
  EXPECT_FALSE(Visits(web_));
  EXPECT_EQ(alert_, 44);
  EXPECT_TRUE(Visits(team_.Mint(kWeb))) << "another certificate of the same CA";
}

TEST_F(CrlTest, OutOfDateItRefusesTheNewAndLeavesTheOpen) {
  const std::shared_ptr<const x509::Crl> stale =
      Crl({.next_update = absl::Now() - absl::Minutes(1)});
  RawTls open(pair_.server.Connect(), {.certificate = &web_});
  open.Send("in");
  ASSERT_EQ(open.ReadExactly(2), "in");
  pair_.server.PublishRevocations({}, {stale});
  EXPECT_FALSE(Visits(web_));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kCrlExpired)) << pair_.server.Reasons();
  open.Send("on");
  EXPECT_EQ(open.ReadExactly(2), "on");
  EXPECT_TRUE(Visits(pair_.ca.Mint(kWeb))) << "of a CA that the CRL does not speak for";
}

}  // namespace
}  // namespace postern::testing
