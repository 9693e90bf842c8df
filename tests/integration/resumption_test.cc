// SPDX-License-Identifier: Apache-2.0
// Sessions between two proxies: resumed while nothing has changed, never after something has.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/fake_clock.h"
#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using base::Direction;
using telemetry::TicketRefusal;

class ResumptionTest : public ::testing::Test {
 protected:
  // One connection from end to end; the answer brings the ticket.
  void Visit() {
    Socket socket = pair_.Connect();
    ASSERT_TRUE(socket.Send("hello"));
    ASSERT_EQ(socket.ReadExactly(5), "hello") << pair_.server.Reasons() << pair_.client.Reasons();
    ++visits_;
    EXPECT_EQ(pair_.server.Handshakes(), visits_);
    EXPECT_EQ(pair_.client.Handshakes(), visits_);
  }
  // The next connection resumes, and both sides say so.
  void ExpectResumed(bool resumed) {
    const uint64_t server = pair_.server.Resumed();
    const uint64_t client = pair_.client.Resumed();
    Visit();
    EXPECT_EQ(pair_.server.Resumed() - server, resumed ? 1U : 0U);
    EXPECT_EQ(pair_.client.Resumed() - client, resumed ? 1U : 0U);
  }
  // A full handshake, and resumption again after it.
  void ExpectOneFull() {
    ExpectResumed(false);
    ExpectResumed(true);
  }

  fakes::FakeClock clock_{absl::Now()};  // outlives the proxies
  ProxyPair pair_{&Echo};
  uint64_t visits_ = 0;
};

TEST_F(ResumptionTest, TheSecondConnectionResumesAndIsRecordedAsSuch) {
  pair_.Start();
  ExpectOneFull();
  ExpectResumed(true);
  EXPECT_TRUE(pair_.server.AwaitIdle());
  EXPECT_TRUE(pair_.client.AwaitIdle());
  for (TestProxy* proxy : {&pair_.client, &pair_.server}) {
    const std::string peer(proxy == &pair_.client ? kDb : kWeb);
    const std::string log = proxy->AccessLog();
    size_t resumed = 0;
    size_t named = 0;
    for (size_t at = 0; (at = log.find("\"tls_resumed\":true", at)) != std::string::npos; ++at) {
      ++resumed;
    }
    for (size_t at = 0; (at = log.find("\"peer_id\":\"" + peer, at)) != std::string::npos; ++at) {
      ++named;
    }
    EXPECT_EQ(resumed, 2U) << log;
    EXPECT_EQ(named, 3U) << log;
  }
}

TEST_F(ResumptionTest, SwitchedOffOnEitherSideEachHandshakeIsFull) {
  pair_.server.config.resumption = false;
  pair_.Start();
  for (int i = 0; i < 3; ++i) {
    ExpectResumed(false);
  }
  ProxyPair other(&Echo);
  other.client.config.resumption = false;
  other.Start();
  for (int i = 0; i < 3; ++i) {
    Socket socket = other.Connect();
    socket.Send("x");
    ASSERT_EQ(socket.ReadExactly(1), "x");
  }
  EXPECT_EQ(other.client.Resumed() + other.server.Resumed(), 0U);
  EXPECT_EQ(other.server.Handshakes(), 3U);
}

TEST_F(ResumptionTest, TheWorkersOfAProxyTakeEachOthersTickets) {
  pair_.server.config.workers = 4;
  pair_.Start();
  for (int i = 0; i < 30; ++i) {  // the kernel spreads them over the workers
    ExpectResumed(i > 0);
  }
}

TEST_F(ResumptionTest, ARenewalOfTheServerMeansAFullHandshake) {
  pair_.Start();
  ExpectOneFull();
  pair_.server.PublishIdentity(pair_.ca, kDb);
  ExpectOneFull();
  EXPECT_EQ(pair_.server.Refused(TicketRefusal::kUnknownKey), 1U);
}

TEST_F(ResumptionTest, ARenewalOfTheClientMeansAFullHandshake) {
  pair_.Start();
  ExpectOneFull();
  pair_.client.PublishIdentity(pair_.ca, kWeb);
  ExpectOneFull();
  EXPECT_EQ(pair_.server.Refused(TicketRefusal::kUnknownKey), 0U);  // none was offered
}

TEST_F(ResumptionTest, AChangeOfBundlesOnEitherSideMeansAFullHandshake) {
  pair_.Start();
  ExpectOneFull();
  const TestCa friendly("friend.test");
  pair_.server.PublishBundles(BundleSetOf({&pair_.ca, &friendly}));
  ExpectOneFull();
  pair_.client.PublishBundles(BundleSetOf({&pair_.ca, &friendly}));
  ExpectOneFull();
}

TEST_F(ResumptionTest, ARootThatIsTakenAwayIsNotGotRoundWithATicket) {
  pair_.Start();
  ExpectOneFull();
  const TestCa successor;
  pair_.server.PublishBundles(successor.BundleSet());
  Socket socket = pair_.Connect();
  socket.Send("x");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPeerUntrusted)) << pair_.server.Reasons();
}

TEST_F(ResumptionTest, AChangeOfPolicyMeansAFullHandshakeAndTheNewPolicyCounts) {
  pair_.Start();
  ExpectOneFull();
  for (uint64_t i = 1; i <= 2; ++i) {  // twice the same revision: it is another set all the same
    pair_.server.PublishPolicy(kAllowWeb, kDb);
    ExpectOneFull();
    EXPECT_EQ(pair_.server.Refused(TicketRefusal::kChanged), i);
  }
  pair_.server.PublishPolicy(kDenyWeb, kDb);
  for (uint64_t i = 1; i <= 2; ++i) {
    Socket socket = pair_.Connect();
    socket.Send("x");
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
    EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPolicyDenied, i)) << pair_.server.Reasons();
  }
  EXPECT_EQ(pair_.server.Resumed(), 3U);
}

TEST_F(ResumptionTest, AResumedConnectionAnswersToTodaysPolicyToo) {
  pair_.Start();
  ExpectResumed(false);
  Socket held = pair_.Connect();  // resumes
  ASSERT_TRUE(held.Send("x"));
  ASSERT_EQ(held.ReadExactly(1), "x");
  ASSERT_EQ(pair_.server.Resumed(), 1U);
  pair_.server.PublishPolicy(kDenyWeb, kDb);
  EXPECT_EQ(Name(held.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPolicyRevoked)) << pair_.server.Reasons();
}

TEST_F(ResumptionTest, ARemovedRootEndsAResumedConnectionByTheChainOfTheFullHandshake) {
  pair_.Start();
  ExpectResumed(false);
  Socket held = pair_.Connect();
  ASSERT_TRUE(held.Send("x"));
  ASSERT_EQ(held.ReadExactly(1), "x");
  ASSERT_EQ(pair_.client.Resumed(), 1U);
  const TestCa successor;
  pair_.client.PublishBundles(successor.BundleSet());
  EXPECT_EQ(Name(held.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kPolicyRevoked)) << pair_.client.Reasons();
}

TEST_F(ResumptionTest, PastTheDeadlineAHandshakeIsFullAgain) {
  pair_.server.shared.clock = &clock_;
  pair_.client.shared.clock = &clock_;
  pair_.Start();  // certificates have an hour left
  ExpectOneFull();
  clock_.Advance(absl::Minutes(50));
  ExpectResumed(true);
  clock_.Advance(absl::Minutes(9));
  ExpectResumed(true);
  pair_.server.PublishIdentity(pair_.ca.Issue(kDb, clock_.Now(), absl::Hours(8)),
                               pair_.ca.BundleSet());
  pair_.client.PublishIdentity(pair_.ca.Issue(kWeb, clock_.Now(), absl::Hours(8)),
                               pair_.ca.BundleSet());
  ExpectOneFull();
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(absl::Minutes(11));
    ExpectResumed(true);
  }
  clock_.Advance(absl::Minutes(6));  // an hour since the full one, and never idle
  ExpectOneFull();
}

TEST_F(ResumptionTest, ADeniedClientIsGivenNoTicket) {
  pair_.Start();
  pair_.server.PublishPolicy(kDenyWeb, kDb);
  for (uint64_t i = 1; i <= 3; ++i) {
    Socket socket = pair_.Connect();
    socket.Send("x");
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
    EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPolicyDenied, i)) << pair_.server.Reasons();
  }
  EXPECT_EQ(pair_.server.Resumed(), 0U);
  for (const TicketRefusal refusal : {TicketRefusal::kUnknownKey, TicketRefusal::kChanged}) {
    EXPECT_EQ(pair_.server.Refused(refusal), 0U);  // nor did it offer one
  }
}

}  // namespace
}  // namespace postern::testing
