// SPDX-License-Identifier: Apache-2.0
// The certificate comes late, expires, is renewed under traffic.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/fake_clock.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using base::Direction;
using std::chrono::milliseconds;

TEST(IdentityTest, AConnectionIsHeldUntilTheFirstCertificateComes) {
  TestCa ca;
  Server app(&Echo);
  TestProxy server;
  server.AddTunnel(Direction::kInbound, "127.0.0.1:0", "127.0.0.1:" + std::to_string(app.port()),
                   {std::string(kWeb)});
  server.Start();
  server.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  TestProxy client;
  client.AddTunnel(Direction::kOutbound, "127.0.0.1:0",
                   "127.0.0.1:" + std::to_string(server.Port()), {std::string(kDb)});
  client.Start();
  Socket socket = client.Connect();
  socket.Send("early");
  ASSERT_TRUE(Await([&] { return client.Opened() == 1; }));
  client.PublishIdentity(ca, kWeb);
  ASSERT_TRUE(Await([&] { return server.Opened() == 1; }));
  server.PublishIdentity(ca, kDb);
  EXPECT_EQ(socket.ReadExactly(5), "early");
}

TEST(IdentityTest, WithoutACertificateAConnectionEndsAtTheDeadlineAndNothingIsDialled) {
  Server peer(&Echo);
  TestProxy proxy;
  proxy.config.handshake_timeout = milliseconds(100);
  proxy.AddTunnel(Direction::kOutbound, "127.0.0.1:0", "127.0.0.1:" + std::to_string(peer.port()),
                  {std::string(kDb)});
  proxy.AddTunnel(Direction::kInbound, "127.0.0.1:0", "127.0.0.1:" + std::to_string(peer.port()),
                  {std::string(kWeb)});
  proxy.Start();
  proxy.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  Socket out = proxy.Connect(0);
  out.Send("secret");
  EXPECT_EQ(Name(out.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy.AwaitClosed(CloseReason::kNoIdentity)) << proxy.Reasons();
  const RawTls in(proxy.Connect(1), {});
  EXPECT_FALSE(in.ok());
  EXPECT_TRUE(proxy.AwaitClosed(CloseReason::kNoIdentity, 2)) << proxy.Reasons();
  EXPECT_EQ(peer.accepted(), 0);
}

TEST(IdentityTest, AnExpiredCertificateServesNoNewConnectionAndAnOpenOneGoesOn) {
  fakes::FakeClock clock(absl::Now());
  ProxyPair pair(&Echo);
  pair.server.shared.clock = &clock;
  pair.Start();
  Socket open = pair.Connect();
  open.Send("x");
  ASSERT_EQ(open.ReadExactly(1), "x");
  clock.Advance(absl::Hours(3));
  Socket late = pair.Connect();
  EXPECT_NE(Name(late.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kNoIdentity)) << pair.server.Reasons();
  open.Send("y");
  EXPECT_EQ(open.ReadExactly(1), "y");
}

TEST(IdentityTest, AHundredRenewalsUnderTrafficDropNothing) {
  ProxyPair pair(&Echo);
  pair.Start();
  std::atomic<bool> stop = false;
  std::atomic<int> failures = 0;
  std::atomic<int> exchanges = 0;
  std::vector<std::thread> users;
  for (int i = 0; i < 3; ++i) {
    users.emplace_back([&] {
      Socket held = pair.Connect();
      while (!stop) {
        Socket fresh = pair.Connect();
        for (Socket* socket : {&held, &fresh}) {
          failures += socket->Send("ping") && socket->ReadExactly(4) == "ping" ? 0 : 1;
          ++exchanges;
        }
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    pair.server.PublishIdentity(pair.ca, kDb);
    pair.client.PublishIdentity(pair.ca, kWeb);
    const int before = exchanges;
    ASSERT_TRUE(Await([&] { return exchanges > before; }));
  }
  stop = true;
  for (std::thread& user : users) {
    user.join();
  }
  EXPECT_EQ(failures, 0) << pair.server.Reasons() << "; " << pair.client.Reasons();
}

TEST(IdentityTest, ANewConnectionShowsTheNewCertificate) {
  ProxyPair pair(&Echo);
  pair.Start();
  const Minted web = pair.ca.Mint(kWeb);
  RawTls before(pair.server.Connect(), {.certificate = &web});
  ASSERT_TRUE(before.ok());
  pair.server.PublishIdentity(pair.ca, "spiffe://example.org/renamed");
  Socket refused = pair.Connect();  // the client's proxy expects kDb
  refused.Send("x");
  EXPECT_NE(Name(refused.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kIdentityMismatch)) << pair.client.Reasons();
  before.Send("still");
  EXPECT_EQ(before.ReadExactly(5), "still");
}

}  // namespace
}  // namespace postern::testing
