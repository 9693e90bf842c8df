// SPDX-License-Identifier: Apache-2.0
// Authorisation is no event of the handshake: open connections answer to today's policy and trust.
#include <gtest/gtest.h>

#include <string>

#include "common/x509/certificate.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;

std::string Exchange(Socket& socket, std::string_view text) {
  socket.Send(text);
  return socket.ReadExactly(text.size());
}

TEST(PolicyRecheckTest, APolicyThatDeniesEndsTheOpenConnection) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  pair.server.PublishPolicy(kDenyWeb, kDb);
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kPolicyRevoked)) << pair.server.Reasons();
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kRejectedByPeer)) << pair.client.Reasons();
  Socket again = pair.Connect();
  again.Send("x");
  EXPECT_EQ(Name(again.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kPolicyDenied)) << pair.server.Reasons();
}

TEST(PolicyRecheckTest, APolicyThatStillAllowsLeavesTheConnectionAlone) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  pair.server.PublishPolicy(kAllowWeb, kDb);
  EXPECT_EQ(Exchange(socket, "after"), "after");
  EXPECT_EQ(pair.server.Closed(), 0U) << pair.server.Reasons();
}

TEST(PolicyRecheckTest, ARootThatIsTakenAwayEndsItsConnectionsOnBothSides) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  const TestCa successor;
  pair.server.PublishBundles(successor.BundleSet());
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kPolicyRevoked)) << pair.server.Reasons();
}

TEST(PolicyRecheckTest, ARootThatTheClientTakesAwayEndsTheConnectionToo) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  const TestCa successor;
  pair.client.PublishBundles(successor.BundleSet());
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kPolicyRevoked)) << pair.client.Reasons();
}

// All that a rotation's old root vouched for has been renewed or has expired; what stands on it
// goes on.
TEST(PolicyRecheckTest, ARootThatIsRetiredInOrderEndsNothingAndVouchesForNothingNew) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  const TestCa successor;
  for (TestProxy* proxy : {&pair.server, &pair.client}) {
    x509::TrustBundle bundle = successor.Bundle();
    bundle.SetRetiredRoots({x509::Sha256OfCertificate(pair.ca.root())});
    std::vector<x509::TrustBundle> bundles;
    bundles.push_back(std::move(bundle));
    proxy->PublishBundles(x509::TrustBundleSet(std::move(bundles)));
  }
  EXPECT_EQ(Exchange(socket, "after"), "after");
  Socket again = pair.Connect();
  again.Send("x");
  EXPECT_EQ(Name(again.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kPeerUntrusted)) << pair.client.Reasons();
  EXPECT_EQ(Exchange(socket, "still"), "still");
}

TEST(PolicyRecheckTest, ARootThatIsAddedEndsNothing) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_EQ(Exchange(socket, "before"), "before");
  const TestCa friendly("friend.test");
  pair.server.PublishBundles(BundleSetOf({&pair.ca, &friendly}));
  EXPECT_EQ(Exchange(socket, "after"), "after");
}

TEST(PolicyRecheckTest, NothingIsLetInBeforeThePolicyHasCome) {
  TestCa ca;
  Server app(&Echo);
  TestProxy server;
  server.AddTunnel(base::Direction::kInbound, "127.0.0.1:0",
                   "127.0.0.1:" + std::to_string(app.port()), {std::string(kWeb)});
  server.Start();
  server.PublishIdentity(ca, kDb);
  const Minted web = ca.Mint(kWeb);
  for (uint64_t i = 1; i <= 2; ++i) {
    RawTls peer(server.Connect(), {.certificate = &web});
    peer.Send("x");
    EXPECT_EQ(peer.Read(1), "");
    EXPECT_EQ(peer.alert(), 49);
    EXPECT_TRUE(server.AwaitClosed(CloseReason::kNoPolicy, i)) << server.Reasons();
    server.PublishPolicy(policy::PolicySet::DenyAll());
  }
  EXPECT_EQ(app.accepted(), 0);
  server.PublishPolicy(kAllowWeb, kDb);
  RawTls peer(server.Connect(), {.certificate = &web});
  peer.Send("in");
  EXPECT_EQ(peer.ReadExactly(2), "in");
}

TEST(PolicyRecheckTest, ATlsOnlyTunnelLetsAClientWithoutCertificateIn) {
  TestCa ca;
  Server app(&Echo);
  TestProxy server;
  server.AddTunnel(base::Direction::kInbound, "127.0.0.1:0",
                   "127.0.0.1:" + std::to_string(app.port()), {}, /*client_auth=*/false);
  server.Start();
  server.PublishIdentity(ca, kDb);
  server.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  RawTls peer(server.Connect(), {});
  ASSERT_TRUE(peer.ok());
  peer.Send("anyone");
  EXPECT_EQ(peer.ReadExactly(6), "anyone");
  EXPECT_EQ(server.Secured(telemetry::Security::kTlsOnly), 1U);
}

}  // namespace
}  // namespace postern::testing
