// SPDX-License-Identifier: Apache-2.0
// A TLS peer whose TCP ends without close_notify was cut off: the application sees a reset, never a
// short but clean stream.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>

#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;

TEST(TruncationTest, OfAnInboundPeerResetsTheApplication) {
  std::atomic<int> end = -1;
  std::atomic<size_t> got = 0;
  ProxyPair pair([&](Socket socket) {
    got = socket.ReadToEnd().size();
    end = static_cast<int>(socket.last_end());
  });
  pair.Start();
  const Minted web = pair.ca.Mint(kWeb);
  for (int cut = 0; cut < 20; ++cut) {
    end = -1;
    {
      RawTls peer(pair.server.Connect(), {.certificate = &web});
      ASSERT_TRUE(peer.ok());
      ASSERT_TRUE(peer.Send(std::string(static_cast<size_t>(cut) * 997 + 1, 'x')));
      ASSERT_TRUE(Await([&] { return pair.app.accepted() == cut + 1; }));
      peer.socket().ShutdownWrite();  // FIN, as a kernel sends it for a process that was killed
      EXPECT_TRUE(Await([&] { return end >= 0; }));
    }
    EXPECT_EQ(Name(static_cast<ReadEnd>(end.load())), Name(ReadEnd::kReset)) << cut;
  }
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kTruncated, 20)) << pair.server.Reasons();
}

TEST(TruncationTest, OfAnOutboundPeerResetsTheClient) {
  TestCa ca;
  const Minted db = ca.Mint(kDb);
  Server peer([&](Socket socket) {
    RawTls tls(std::move(socket), {.certificate = &db, .server = true});
    ASSERT_TRUE(tls.ok());
    tls.ReadExactly(1);
    tls.Send("half of the ans");
    tls.socket().ShutdownWrite();
    tls.Read(1);
  });
  TestProxy client;
  client.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                   "127.0.0.1:" + std::to_string(peer.port()), {std::string(kDb)});
  client.Start();
  client.PublishIdentity(ca, kWeb);
  Socket socket = client.Connect();
  socket.Send("?");
  socket.ReadToEnd();
  EXPECT_EQ(Name(socket.last_end()), Name(ReadEnd::kReset));
  EXPECT_TRUE(client.AwaitClosed(CloseReason::kTruncated)) << client.Reasons();
}

TEST(TruncationTest, IsNotWhatACloseNotifyMeans) {
  std::atomic<int> end = -1;
  ProxyPair pair([&](Socket socket) {
    EXPECT_EQ(socket.ReadToEnd(), "whole");
    end = static_cast<int>(socket.last_end());
  });
  pair.Start();
  const Minted web = pair.ca.Mint(kWeb);
  RawTls peer(pair.server.Connect(), {.certificate = &web});
  ASSERT_TRUE(peer.ok());
  peer.Send("whole");
  peer.CloseNotify();
  peer.socket().ShutdownWrite();
  EXPECT_TRUE(Await([&] { return end >= 0; }));
  EXPECT_EQ(Name(static_cast<ReadEnd>(end.load())), Name(ReadEnd::kEnd));
  EXPECT_TRUE(peer.DrainToCleanEnd());
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kOk)) << pair.server.Reasons();
}

}  // namespace
}  // namespace postern::testing
