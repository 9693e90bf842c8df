// SPDX-License-Identifier: Apache-2.0
// A reset on one leg is a reset on all of them, never a clean end.
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;

TEST(ResetTest, OfTheApplicationReachesTheClient) {
  ProxyPair pair([](Socket socket) {
    socket.ReadExactly(1);
    socket.Reset();
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("x");
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kReset);
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kReset)) << pair.server.Reasons();
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kReset)) << pair.client.Reasons();
}

TEST(ResetTest, OfTheClientReachesTheApplication) {
  std::atomic<int> end = -1;
  ProxyPair pair([&](Socket socket) {
    socket.ReadExactly(1);
    socket.Send("y");
    end = static_cast<int>(socket.DrainToEnd());
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("x");
  ASSERT_EQ(socket.ReadExactly(1), "y");
  socket.Reset();
  EXPECT_TRUE(Await([&] { return end.load() == static_cast<int>(ReadEnd::kReset); }));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kReset)) << pair.server.Reasons();
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kReset)) << pair.client.Reasons();
}

// The client's direction has ended, so that its reset is not heard; then there is nobody to whom
// the application's end could be passed on.
TEST(ResetTest, BetweenTheTwoEndsLeavesNothing) {
  std::atomic<bool> half_closed = false;
  std::atomic<bool> gone = false;
  std::atomic<bool> may_end = false;
  ProxyPair pair([&](Socket socket) {
    EXPECT_EQ(socket.ReadToEnd(), "x");
    half_closed = true;
    EXPECT_TRUE(Await([&] { return gone.load(); }));
    socket.Send("to nobody");  // by which the client's proxy learns that its client is gone
    EXPECT_TRUE(Await([&] { return may_end.load(); }));
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("x");
  socket.ShutdownWrite();
  EXPECT_TRUE(Await([&] { return half_closed.load(); }));
  socket.Reset();
  gone = true;
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kReset)) << pair.client.Reasons();
  may_end = true;
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kReset)) << pair.server.Reasons();
  EXPECT_TRUE(pair.server.AwaitIdle()) << pair.server.Reasons();
}

TEST(ResetTest, WhileDataFlowsEndsBothSidesAndLeavesNothing) {
  ProxyPair pair([](Socket socket) {
    const std::string block(1U << 16U, 'x');
    while (socket.Send(block)) {
    }
  });
  pair.Start();
  for (int i = 0; i < 20; ++i) {
    Socket socket = pair.Connect();
    socket.ReadExactly(100000);
    socket.Reset();
  }
  EXPECT_TRUE(pair.server.AwaitIdle()) << pair.server.Reasons();
  EXPECT_TRUE(pair.client.AwaitIdle()) << pair.client.Reasons();
}

TEST(ResetTest, RightAfterTheAcceptIsNothingSpecial) {
  ProxyPair pair(&Echo);
  pair.Start();
  for (int i = 0; i < 300; ++i) {
    pair.Connect().Reset();
  }
  Socket socket = pair.Connect();
  socket.Send("still here");
  EXPECT_EQ(socket.ReadExactly(10), "still here");
  socket.Reset();
  EXPECT_TRUE(pair.client.AwaitIdle()) << pair.client.Reasons();
  EXPECT_TRUE(pair.server.AwaitIdle()) << pair.server.Reasons();
}

// An application that answers early and closes with the request unread sends RST; what it said
// before that still arrives.
TEST(ResetTest, DoesNotSwallowTheAnswerThatCameBefore) {
  ProxyPair pair([](Socket socket) {
    socket.ReadExactly(1000);
    socket.Send("413 too large");
    socket.ShutdownWrite();
    socket.DrainToEnd();
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send(std::string(300000, 'b'));
  EXPECT_EQ(socket.ReadExactly(13), "413 too large");
}

}  // namespace
}  // namespace postern::testing
