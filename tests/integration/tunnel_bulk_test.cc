// SPDX-License-Identifier: Apache-2.0
// Much data, both ways at once, through buffers of every size: not one byte lost, doubled or moved.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

constexpr size_t kBulk = 64U << 20U;

TEST(TunnelBulkTest, CarriesSixtyFourMebibytesBothWaysAtOnce) {
  const std::string up = Pattern(kBulk, 1);
  const std::string down = Pattern(kBulk, 2);
  ProxyPair pair([&](Socket socket) {
    std::thread sender([&] { socket.Send(down); });
    EXPECT_TRUE(socket.ReadExactly(kBulk) == up);
    sender.join();
    socket.ShutdownWrite();
    socket.DrainToEnd();
  });
  pair.Start();
  Socket socket = pair.Connect();
  std::thread sender([&] {
    EXPECT_TRUE(socket.Send(up));
    socket.ShutdownWrite();
  });
  EXPECT_TRUE(socket.ReadExactly(kBulk) == down);
  sender.join();
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
  EXPECT_TRUE(pair.server.AwaitClosed(base::CloseReason::kOk)) << pair.server.Reasons();
}

TEST(TunnelBulkTest, LosesNothingThroughTinySocketBuffers) {
  constexpr size_t kBytes = 4U << 20U;
  const std::string up = Pattern(kBytes, 3);
  ProxyPair pair(
      [&](Socket socket) {
        socket.SetSendBuffer(2048);
        const std::string got = socket.ReadExactly(kBytes);
        EXPECT_TRUE(got == up);
        socket.Send(got);
        socket.ShutdownWrite();
        socket.DrainToEnd();
      },
      /*receive_buffer=*/2048);
  pair.Start();
  Socket socket = Socket::Connect("127.0.0.1", pair.client.Port(), /*receive_buffer=*/2048);
  socket.SetSendBuffer(2048);
  ASSERT_TRUE(socket.Send(up));
  EXPECT_TRUE(socket.ReadExactly(kBytes) == up);
  socket.ShutdownWrite();
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
}

// Reads of 1 KiB against records of 16 KiB: what stays decrypted inside the engine must not wait
// for a readiness that never comes.
TEST(TunnelBulkTest, NeverStallsOnBytesThatStayInsideTheEngine) {
  constexpr size_t kBytes = 2U << 20U;
  const std::string down = Pattern(kBytes, 4);
  ProxyPair pair([&](Socket socket) {
    socket.Send(down);
    socket.ShutdownWrite();
    socket.DrainToEnd();
  });
  pair.client.config.high_watermark = 2048;
  pair.client.config.low_watermark = 512;
  pair.Start();
  Socket socket = Socket::Connect("127.0.0.1", pair.client.Port(), /*receive_buffer=*/2048);
  std::string got;
  while (got.size() < kBytes) {
    const std::string some = socket.Read(1024);
    ASSERT_FALSE(some.empty()) << Name(socket.last_end()) << " after " << got.size();
    got += some;
  }
  EXPECT_TRUE(got == down);
}

TEST(TunnelBulkTest, AnswersSmallMessagesAtOnce) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  std::vector<std::chrono::steady_clock::duration> took;
  for (int i = 0; i < 200; ++i) {
    const auto began = std::chrono::steady_clock::now();
    ASSERT_TRUE(socket.Send("a"));
    ASSERT_TRUE(socket.Send("b"));
    ASSERT_EQ(socket.ReadExactly(2), "ab");
    took.push_back(std::chrono::steady_clock::now() - began);
  }
  // Nagle against delayed acknowledgements would cost 40 ms each; a busy machine makes some slow.
  std::sort(took.begin(), took.end());
  EXPECT_LT(took[took.size() / 2], std::chrono::milliseconds(30));
}

}  // namespace
}  // namespace postern::testing
