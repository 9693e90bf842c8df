// SPDX-License-Identifier: Apache-2.0
// Connections of one SPIFFE ID are bounded, over all workers; another one is served. (Limits by
// address do not bind this host: e2e/limits_test.py has those.)
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proxy/session/source_limits.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;

TEST(PeerConnectionsTest, ThoseBeyondTheLimitAreResetAndTheNextComesInWhenOneHasEnded) {
  ProxyPair pair(&Echo);
  pair.server.config.max_connections_per_peer = 3;
  pair.server.config.workers = 2;
  pair.Start();
  std::vector<Socket> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(pair.Connect());
    ASSERT_TRUE(held.back().Send("x"));
    ASSERT_EQ(held.back().ReadExactly(1), "x") << i;
  }
  for (int i = 0; i < 5; ++i) {
    Socket refused = pair.Connect();
    EXPECT_EQ(Name(refused.DrainToEnd()), Name(ReadEnd::kReset));
  }
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kPeerConnections, 5)) << pair.server.Reasons();
  EXPECT_NE(pair.server.Failures().find("--max-connections-per-peer"), std::string::npos);
  for (Socket& socket : held) {
    EXPECT_TRUE(socket.Send("y"));
    EXPECT_EQ(socket.ReadExactly(1), "y") << "the others go on";
  }
  held.front().Close();
  ASSERT_TRUE(pair.server.AwaitClosed(CloseReason::kOk)) << pair.server.Reasons();
  Socket next = pair.Connect();
  next.Send("z");
  EXPECT_EQ(next.ReadExactly(1), "z");
}

TEST(PeerConnectionsTest, AnotherPeerIsServedMeanwhile) {
  TestCa ca;
  const Minted web = ca.Mint(kWeb);
  const Minted other = ca.Mint("spiffe://example.org/other");
  Server app(&Echo);
  TestProxy proxy;
  proxy.config.max_connections_per_peer = 1;
  proxy.AddTunnel(base::Direction::kInbound, "127.0.0.1:0",
                  "127.0.0.1:" + std::to_string(app.port()), {"spiffe://example.org/*"});
  proxy.Start();
  proxy.PublishIdentity(ca, kDb);
  proxy.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  RawTls first(proxy.Connect(), {.certificate = &web});
  first.Send("a");
  EXPECT_EQ(first.ReadExactly(1), "a");
  RawTls second(proxy.Connect(), {.certificate = &web});
  EXPECT_EQ(second.Read(1), "");
  EXPECT_TRUE(proxy.AwaitClosed(CloseReason::kPeerConnections)) << proxy.Reasons();
  RawTls another(proxy.Connect(), {.certificate = &other});
  another.Send("b");
  EXPECT_EQ(another.ReadExactly(1), "b");
  proxy.Stop();
}

TEST(PeerConnectionsTest, ThisHostsAddressIsBoundByNoLimitForSources) {
  ProxyPair pair(&Echo);
  for (TestProxy* proxy : {&pair.client, &pair.server}) {
    proxy->config.max_connections_per_source = 1;
    proxy->config.max_handshakes_per_source = 1;
    proxy->config.max_rate_per_source = 1;
  }
  pair.Start();
  std::vector<Socket> held;
  for (int i = 0; i < 20; ++i) {
    held.push_back(pair.Connect());
    ASSERT_TRUE(held.back().Send("x"));
    ASSERT_EQ(held.back().ReadExactly(1), "x") << i;
  }
}

}  // namespace
}  // namespace postern::testing
