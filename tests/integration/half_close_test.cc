// SPDX-License-Identifier: Apache-2.0
// An end of one direction travels through the mesh as an end of that direction alone: FIN becomes
// close_notify becomes FIN, and the other direction lives on.
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;

TEST(HalfCloseTest, TheClientEndsFirstAndStillGetsALongAnswer) {
  const std::string answer = Pattern(8U << 20U, 1);
  ProxyPair pair([&](Socket socket) {
    EXPECT_EQ(socket.ReadToEnd(), "request");
    EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
    socket.Send(answer);
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("request");
  socket.ShutdownWrite();
  EXPECT_TRUE(socket.ReadToEnd() == answer);
  EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kOk)) << pair.server.Reasons();
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kOk)) << pair.client.Reasons();
}

TEST(HalfCloseTest, TheServerEndsFirstAndStillGetsALongUpload) {
  const std::string upload = Pattern(8U << 20U, 2);
  std::atomic<bool> complete = false;
  ProxyPair pair([&](Socket socket) {
    socket.Send("enough");
    socket.ShutdownWrite();
    complete = socket.ReadToEnd() == upload && socket.last_end() == ReadEnd::kEnd;
  });
  pair.Start();
  Socket socket = pair.Connect();
  EXPECT_EQ(socket.ReadToEnd(), "enough");
  EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
  EXPECT_TRUE(socket.Send(upload));
  socket.ShutdownWrite();
  EXPECT_TRUE(Await([&] { return complete.load(); }));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kOk)) << pair.server.Reasons();
}

TEST(HalfCloseTest, BothEndAtOnce) {
  ProxyPair pair([](Socket socket) {
    socket.Send("bye");
    socket.ShutdownWrite();
    EXPECT_EQ(socket.ReadToEnd(), "bye");
    EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("bye");
  socket.ShutdownWrite();
  EXPECT_EQ(socket.ReadToEnd(), "bye");
  EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kOk)) << pair.server.Reasons();
}

TEST(HalfCloseTest, AnEndWithoutAnyByteIsAnEnd) {
  ProxyPair pair([](Socket socket) {
    EXPECT_EQ(socket.ReadToEnd(), "");
    EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
    socket.Send("nobody asked");
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.ShutdownWrite();
  EXPECT_EQ(socket.ReadToEnd(), "nobody asked");
  EXPECT_EQ(socket.last_end(), ReadEnd::kEnd);
}

TEST(HalfCloseTest, TheOtherDirectionCarriesManyMessagesAfterTheEnd) {
  ProxyPair pair([](Socket socket) {
    EXPECT_EQ(socket.ReadToEnd(), "subscribe");
    for (int i = 0; i < 100; ++i) {
      socket.Send("event;");
    }
  });
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("subscribe");
  socket.ShutdownWrite();
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(socket.ReadExactly(6), "event;");
  }
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
}

}  // namespace
}  // namespace postern::testing
