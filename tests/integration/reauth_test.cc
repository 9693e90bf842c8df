// SPDX-License-Identifier: Apache-2.0
// Connections that outlive certificates: the client proves itself again inside them, and who does
// not, or cannot, is dealt with as --on-peer-expiry says.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/certificate.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using config::OnPeerExpiry;
using telemetry::ReauthResult;

// The system's clock, and as much more as the test lets go by. Any thread.
class ClockAhead final : public base::Clock {
 public:
  absl::Time Now() const override { return System().Now() + Ahead(); }
  absl::Duration SinceBoot() const override { return System().SinceBoot() + Ahead(); }
  absl::Duration Awake() const override { return System().Awake() + Ahead(); }
  void Advance(absl::Duration by) { ahead_ += absl::ToInt64Milliseconds(by); }

 private:
  absl::Duration Ahead() const { return absl::Milliseconds(ahead_.load()); }
  std::atomic<int64_t> ahead_{0};
};

class ReauthTest : public ::testing::Test {
 protected:
  static constexpr absl::Duration kTtl = absl::Minutes(10);

  ReauthTest() {
    for (TestProxy* proxy : {&pair_.client, &pair_.server}) {
      proxy->shared.clock = &clock_;
      proxy->shared.hears_issuer = [this] { return hears_issuer_.load(); };
    }
  }
  void RenewClient(const TestCa& ca, std::string_view id = kWeb, absl::Duration ttl = kTtl) {
    pair_.client.PublishIdentity(ca.Issue(id, clock_.Now(), ttl), pair_.ca.BundleSet());
  }
  void RenewServer(absl::Duration ttl = kTtl) {
    pair_.server.PublishIdentity(pair_.ca.Issue(kDb, clock_.Now(), ttl), pair_.ca.BundleSet());
  }
  void RenewBoth() {
    RenewClient(pair_.ca);
    RenewServer();
  }
  // The client's worker has heard of its renewal.
  void RenewClient(Socket& socket, const TestCa& ca, std::string_view id = kWeb,
                   absl::Duration ttl = kTtl) {
    RenewClient(ca, id, ttl);
    ASSERT_TRUE(Echoes(socket)) << pair_.server.Reasons();
  }
  // The first connection, made with certificates of kTtl.
  Socket Begin() {
    pair_.Start();
    RenewBoth();
    Socket socket = pair_.Connect();
    EXPECT_TRUE(Echoes(socket)) << pair_.server.Reasons() << pair_.client.Reasons();
    return socket;
  }
  static bool Echoes(Socket& socket) { return socket.Send("x") && socket.ReadExactly(1) == "x"; }
  uint64_t Count(ReauthResult result) {
    return pair_.server.worker().metrics().reauthentications[static_cast<size_t>(result)].value();
  }
  bool Await(ReauthResult result, uint64_t count) {
    return testing::Await([this, result, count] { return Count(result) >= count; });
  }
  int64_t PastExpiry(TestProxy& proxy) {
    const telemetry::WorkerMetrics& m = proxy.worker().metrics();
    uint64_t ended = 0;
    uint64_t began = 0;
    for (size_t d = 0; d < base::kDirectionCount; ++d) {
      ended += m.past_expiry_ended[d].value();
      began += m.past_expiry_began[d].value();
    }
    return static_cast<int64_t>(began) - static_cast<int64_t>(ended);
  }
  bool AwaitPastExpiry(TestProxy& proxy, int64_t count) {
    return testing::Await([this, &proxy, count] { return PastExpiry(proxy) == count; });
  }

  ClockAhead clock_;  // outlives the proxies
  std::atomic<bool> hears_issuer_{true};
  ProxyPair pair_{&Echo};
};

TEST_F(ReauthTest, AConnectionOutlivesFiveLifetimesOfBothCertificates) {
  Socket socket = Begin();
  clock_.Advance(0.25 * kTtl);
  for (uint64_t i = 1; i <= 10; ++i) {
    clock_.Advance(0.35 * kTtl);  // both renew at 60 % of their lifetimes
    RenewBoth();
    ASSERT_TRUE(Echoes(socket)) << pair_.server.Failures() << pair_.client.Failures();
    clock_.Advance(0.25 * kTtl);  // past the time of asking, before the end
    ASSERT_TRUE(Await(ReauthResult::kRenewed, i))
        << i << " " << pair_.server.Failures() << pair_.client.Failures();
    ASSERT_TRUE(Echoes(socket));
  }
  EXPECT_EQ(PastExpiry(pair_.server), 0);
  EXPECT_EQ(pair_.server.Closed() + pair_.client.Closed(), 0U);
  // The server's certificate cannot be renewed inside the connection: it is allowed to be past.
  EXPECT_TRUE(AwaitPastExpiry(pair_.client, 1));
  socket.Close();
  EXPECT_TRUE(pair_.server.AwaitIdle());
  EXPECT_TRUE(pair_.client.AwaitIdle());
  EXPECT_TRUE(AwaitPastExpiry(pair_.client, 0));
  const std::string log = pair_.server.AccessLog();
  EXPECT_NE(log.find("\"reauthentications\":10"), std::string::npos) << log;
  EXPECT_NE(log.find("\"reason\":\"ok\""), std::string::npos) << log;
}

TEST_F(ReauthTest, BytesFlowOnWhileTheClientProvesItself) {
  Socket socket = Begin();
  constexpr size_t kRounds = 200;
  const std::string block(64 << 10, 'b');
  uint64_t renewed = 0;
  for (size_t i = 0; i < kRounds; ++i) {
    if (i % 50 == 10) {
      clock_.Advance(0.5 * kTtl);
      RenewClient(socket, pair_.ca);
      clock_.Advance(0.4 * kTtl);
      ++renewed;
    }
    ASSERT_TRUE(socket.Send(block));
    ASSERT_TRUE(socket.ReadExactly(block.size()) == block) << pair_.server.Failures();
    if (i % 50 == 40) {
      ASSERT_TRUE(Await(ReauthResult::kRenewed, renewed));
    }
  }
  EXPECT_EQ(pair_.server.Closed(), 0U) << pair_.server.Reasons();
}

TEST_F(ReauthTest, TheFactsOfAConnectionAreThoseOfTheRenewedCertificate) {
  Socket socket = Begin();
  clock_.Advance(0.5 * kTtl);
  RenewClient(socket, pair_.ca);
  const absl::Time end = clock_.Now() + kTtl;
  clock_.Advance(0.4 * kTtl);
  ASSERT_TRUE(Await(ReauthResult::kRenewed, 1));
  std::promise<std::vector<session::ConnectionInfo>> promise;
  pair_.server.worker().ListConnections(10, [&promise](std::vector<session::ConnectionInfo> all) {
    promise.set_value(std::move(all));
  });
  const std::vector<session::ConnectionInfo> open = promise.get_future().get();
  ASSERT_EQ(open.size(), 1U);
  EXPECT_EQ(open[0].reauthentications, 1U);
  EXPECT_EQ(open[0].peer_id, kWeb);
  EXPECT_LE(absl::AbsDuration(open[0].peer_not_after - end), absl::Seconds(20));
}

TEST_F(ReauthTest, AClientThatRenewsLateIsAskedAgain) {
  Socket socket = Begin();
  clock_.Advance(0.85 * kTtl);
  ASSERT_TRUE(Await(ReauthResult::kUnchanged, 1));
  RenewClient(socket, pair_.ca);
  clock_.Advance(0.05 * kTtl);
  ASSERT_TRUE(Await(ReauthResult::kRenewed, 1)) << pair_.server.Failures();
  EXPECT_TRUE(Echoes(socket));
}

TEST_F(ReauthTest, AClientWithAnotherIdentityLosesItsConnection) {
  Socket socket = Begin();
  clock_.Advance(0.5 * kTtl);
  RenewClient(socket, pair_.ca, "spiffe://example.org/other");
  clock_.Advance(0.4 * kTtl);
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kReauthFailed)) << pair_.server.Reasons();
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kRejectedByPeer)) << pair_.client.Reasons();
  EXPECT_TRUE(Await(ReauthResult::kFailed, 1));
}

TEST_F(ReauthTest, ACertificateOfAForeignRootEndsTheConnection) {
  Socket socket = Begin();
  const TestCa stranger;
  clock_.Advance(0.5 * kTtl);
  RenewClient(socket, stranger);
  clock_.Advance(0.4 * kTtl);
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kReauthFailed)) << pair_.server.Reasons();
}

// A stolen intermediate renews nobody's open connection once it is revoked.
TEST_F(ReauthTest, ACertificateOfARevokedCaEndsTheConnection) {
  Socket socket = Begin();
  const TestCa stolen = pair_.ca.Intermediate();
  x509::Revocation revocation{.by = x509::RevokedBy::kIssuer, .sequence = 3, .reason = "stolen"};
  revocation.subject = base::ToHex(x509::Sha256OfCertificate(stolen.Intermediates().front().get()));
  pair_.server.PublishRevocations({revocation});
  clock_.Advance(0.5 * kTtl);
  EXPECT_TRUE(Echoes(socket)) << "it does not stand on that one";
  RenewClient(socket, stolen);
  clock_.Advance(0.4 * kTtl);
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kReauthFailed)) << pair_.server.Reasons();
  EXPECT_NE(pair_.server.Failures().find("revo"), std::string::npos) << pair_.server.Failures();
}

TEST_F(ReauthTest, WhoHasNothingNewerIsDealtWithWhenTheEndComes) {
  for (const OnPeerExpiry choice : {OnPeerExpiry::kAllow, OnPeerExpiry::kClose}) {
    ProxyPair pair(&Echo);
    for (TestProxy* proxy : {&pair.client, &pair.server}) {
      proxy->shared.clock = &clock_;
      proxy->config.on_peer_expiry = OnPeerExpiry::kAllow;
    }
    pair.server.config.on_peer_expiry = choice;
    pair.Start();
    pair.client.PublishIdentity(pair.ca.Issue(kWeb, clock_.Now(), kTtl), pair.ca.BundleSet());
    Socket socket = pair.Connect();
    ASSERT_TRUE(Echoes(socket)) << pair.server.Reasons();
    clock_.Advance(1.1 * kTtl);
    if (choice == OnPeerExpiry::kAllow) {
      EXPECT_TRUE(AwaitPastExpiry(pair.server, 1));
      EXPECT_TRUE(Echoes(socket));
      pair.client.PublishIdentity(pair.ca.Issue(kWeb, clock_.Now(), kTtl), pair.ca.BundleSet());
      EXPECT_TRUE(Echoes(socket));
      clock_.Advance(absl::Seconds(6));
      EXPECT_TRUE(AwaitPastExpiry(pair.server, 0)) << "it recovers by itself";
      EXPECT_TRUE(Echoes(socket));
      EXPECT_EQ(pair.server.Closed(), 0U);
    } else {
      EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
      EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kPeerExpiredOpen)) << pair.server.Reasons();
      EXPECT_NE(pair.server.Failures().find("\"alert_sent\":45"), std::string::npos)
          << pair.server.Failures();
    }
  }
}

TEST_F(ReauthTest, ByDefaultTheServersExpiryIsBorneWhileTheIssuerIsHeardAndNoLonger) {
  Socket socket = Begin();
  clock_.Advance(0.5 * kTtl);
  RenewClient(socket, pair_.ca, kWeb, absl::Hours(10));
  clock_.Advance(0.6 * kTtl);
  EXPECT_TRUE(AwaitPastExpiry(pair_.client, 1));
  ASSERT_TRUE(Await(ReauthResult::kRenewed, 1));
  EXPECT_TRUE(Echoes(socket));
  hears_issuer_ = false;
  clock_.Advance(absl::Seconds(6));
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kPeerExpiredOpen)) << pair_.client.Reasons();
  EXPECT_TRUE(AwaitPastExpiry(pair_.client, 0));
}

TEST_F(ReauthTest, WithIdentityFromFilesTheDefaultIsToClose) {
  pair_.client.shared.hears_issuer = nullptr;
  Socket socket = Begin();
  clock_.Advance(1.01 * kTtl);
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.client.AwaitClosed(CloseReason::kPeerExpiredOpen)) << pair_.client.Reasons();
}

// Plain OpenSSL that has not offered it.
TEST_F(ReauthTest, AClientThatCannotBeAskedIsClosedAtTheEndIfItIsToBe) {
  pair_.server.config.on_peer_expiry = OnPeerExpiry::kClose;
  pair_.Start();
  RenewServer(absl::Hours(1));
  CertificateSpec spec = LeafSpec(kWeb);
  spec.LivesFrom(clock_.Now(), kTtl);
  const Minted web = pair_.ca.Mint(spec);
  RawTls peer(pair_.server.Connect(), {.certificate = &web});
  ASSERT_TRUE(peer.ok());
  peer.Send("x");
  ASSERT_EQ(peer.ReadExactly(1), "x");
  clock_.Advance(0.9 * kTtl);
  peer.Send("y");
  ASSERT_EQ(peer.ReadExactly(1), "y");
  clock_.Advance(0.2 * kTtl);
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPeerExpiredOpen)) << pair_.server.Reasons();
  EXPECT_EQ(peer.Read(1), "");
  EXPECT_EQ(peer.alert(), 45);
  for (const ReauthResult result : {ReauthResult::kRenewed, ReauthResult::kUnchanged}) {
    EXPECT_EQ(Count(result), 0U);
  }
}

// The one that the policy of today does not let in is not let in by a renewal either.
TEST_F(ReauthTest, AChangeOfPolicyCountsBesideARenewal) {
  Socket socket = Begin();
  clock_.Advance(0.5 * kTtl);
  RenewClient(socket, pair_.ca);
  clock_.Advance(0.4 * kTtl);
  ASSERT_TRUE(Await(ReauthResult::kRenewed, 1));
  pair_.server.PublishPolicy(kDenyWeb, kDb);
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kPolicyRevoked)) << pair_.server.Reasons();
}

}  // namespace
}  // namespace postern::testing
