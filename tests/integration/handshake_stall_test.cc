// SPDX-License-Identifier: Apache-2.0
// Clients that stall in the handshake end at their deadline, and meanwhile stop nobody.
#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <vector>

#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using std::chrono::milliseconds;

double ProcessCpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

TEST(HandshakeStallTest, EndsASilentClientAtTheDeadline) {
  ProxyPair pair(&Echo);
  pair.server.config.handshake_timeout = milliseconds(150);
  pair.Start();
  Socket silent = pair.server.Connect();
  EXPECT_NE(Name(silent.DrainToEnd()), Name(ReadEnd::kTimeout));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kHandshakeTimeout)) << pair.server.Reasons();
}

TEST(HandshakeStallTest, CountsTheDeadlineFromTheAcceptThoughBytesTrickleIn) {
  ProxyPair pair(&Echo);
  pair.server.config.handshake_timeout = milliseconds(300);
  pair.Start();
  Socket slow = pair.server.Connect();
  slow.SetTimeout(milliseconds(20));
  const auto began = std::chrono::steady_clock::now();
  slow.Send(std::string("\x16\x03\x01\x10\x00\x01\x00\x0f\xfc\x03\x03", 11));
  while (slow.Send("x")) {
    slow.Read(1);  // waits 20 ms
    if (slow.last_end() != ReadEnd::kTimeout) {
      break;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kHandshakeTimeout)) << pair.server.Reasons();
}

TEST(HandshakeStallTest, EndsAServerThatNeverAnswersTheClientHello) {
  Server mute([](Socket socket) { socket.DrainToEnd(); });
  TestCa ca;
  TestProxy client;
  client.config.handshake_timeout = milliseconds(150);
  client.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                   "127.0.0.1:" + std::to_string(mute.port()), {std::string(kDb)});
  client.Start();
  client.PublishIdentity(ca, kWeb);
  Socket socket = client.Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(client.AwaitClosed(CloseReason::kHandshakeTimeout)) << client.Reasons();
}

TEST(HandshakeStallTest, FiveHundredStalledClientsDelayNoGoodOneAndCostNoCpu) {
  ProxyPair pair(&Echo);
  pair.server.config.handshake_timeout = std::chrono::seconds(60);
  pair.Start();
  std::vector<Socket> stalled;
  for (int i = 0; i < 500; ++i) {
    stalled.push_back(pair.server.Connect());
    if (i % 2 == 0) {
      stalled.back().Send(std::string("\x16\x03\x01\x02\x00\x01", 6));
    }
  }
  ASSERT_TRUE(Await([&] { return pair.server.Opened() == 500; }));
  for (int i = 0; i < 20; ++i) {
    const auto began = std::chrono::steady_clock::now();
    Socket socket = pair.Connect();
    ASSERT_TRUE(socket.Send("x"));
    ASSERT_EQ(socket.ReadExactly(1), "x");
    // Those that stall have a minute.
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10));
  }
  const double cpu = ProcessCpuSeconds();
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_LT(ProcessCpuSeconds() - cpu, 0.1) << "stalled handshakes spin";
  EXPECT_EQ(pair.server.Closed(CloseReason::kHandshakeTimeout), 0U);
}

}  // namespace
}  // namespace postern::testing
