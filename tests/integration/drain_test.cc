// SPDX-License-Identifier: Apache-2.0
// SIGTERM's work in the worker: accept for a while, then only finish what is open, then end.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/unique_fd.h"
#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A socket that listens at a port of the system's choice.
base::UniqueFd ListenOnLoopback(uint16_t* port) {
  base::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(bind(fd.get(), any, length), 0);
  EXPECT_EQ(listen(fd.get(), 16), 0);
  EXPECT_EQ(getsockname(fd.get(), any, &length), 0);
  *port = ntohs(address.sin_port);
  return fd;
}

TEST(DrainTest, EndsAtOnceWhenNothingIsOpen) {
  ProxyPair pair(&Echo);
  pair.Start();
  std::atomic<bool> done = false;
  pair.server.worker().Drain(milliseconds(0), seconds(30), [&] { done = true; });
  EXPECT_TRUE(Await([&] { return done.load(); }));
}

TEST(DrainTest, GoesOnAcceptingDuringTheDelayAndRefusesAfterIt) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket held = pair.Connect();
  held.Send("x");
  held.ReadExactly(1);
  std::atomic<bool> done = false;
  pair.server.worker().Drain(seconds(2), seconds(30), [&] { done = true; });
  Socket during = pair.Connect();
  during.Send("y");
  EXPECT_EQ(during.ReadExactly(1), "y");
  EXPECT_TRUE(Await([&] { return !Socket::TryConnect("127.0.0.1", pair.server.Port()).IsOpen(); }));
  held.Send("z");
  EXPECT_EQ(held.ReadExactly(1), "z") << "what is open lives on";
  EXPECT_FALSE(done);
  held.Close();
  during.Close();
  EXPECT_TRUE(Await([&] { return done.load(); }));
  EXPECT_EQ(pair.server.Closed(CloseReason::kDrainDeadline), 0U) << pair.server.Reasons();
}

TEST(DrainTest, LetsTheApplicationGoOnDiallingOut) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket held = pair.Connect();
  held.Send("x");
  held.ReadExactly(1);
  pair.client.worker().Drain(milliseconds(0), seconds(30), [] {});
  for (int i = 0; i < 5; ++i) {
    Socket fresh = pair.Connect();
    fresh.Send("y");
    EXPECT_EQ(fresh.ReadExactly(1), "y");
  }
}

TEST(DrainTest, ResetsWhatIsLeftAtTheDeadline) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket held = pair.Connect();
  held.Send("x");
  held.ReadExactly(1);
  std::atomic<bool> done = false;
  pair.server.worker().Drain(milliseconds(0), milliseconds(100), [&] { done = true; });
  EXPECT_EQ(Name(held.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(Await([&] { return done.load(); }));
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kDrainDeadline)) << pair.server.Reasons();
}

TEST(DrainTest, ASecondCallShortens) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket held = pair.Connect();
  held.Send("x");
  held.ReadExactly(1);
  std::atomic<int> done = 0;
  pair.server.worker().Drain(seconds(60), seconds(120), [&] { ++done; });
  pair.server.worker().Drain(seconds(60), milliseconds(50), [&] { ++done; });
  EXPECT_TRUE(Await([&] { return done == 2; }));
}

// `postern run` may hand a port of its command's over while the proxy drains already.
TEST(DrainTest, APortThatIsHandedOverAfterInboundHasStoppedIsClosed) {
  ProxyPair pair(&Echo);
  pair.server.config.workers = 2;
  pair.Start();
  Socket held = pair.Connect();
  held.Send("x");
  held.ReadExactly(1);
  const auto hand_over = [&](uint16_t* port) {
    auto listening = std::make_shared<base::UniqueFd>(ListenOnLoopback(port));
    for (size_t i = 0; i < 2; ++i) {
      pair.server.worker(i).TakeListener(listening, Loopback(pair.app.port()));
    }
  };
  uint16_t before = 0;
  hand_over(&before);
  EXPECT_TRUE(Socket::TryConnect("127.0.0.1", before).IsOpen());
  for (size_t i = 0; i < 2; ++i) {
    pair.server.worker(i).Drain(milliseconds(0), seconds(30), [] {});
  }
  EXPECT_TRUE(Await([&] { return !Socket::TryConnect("127.0.0.1", before).IsOpen(); }));
  EXPECT_TRUE(Await([&] { return !Socket::TryConnect("127.0.0.1", pair.server.Port()).IsOpen(); }));
  uint16_t after = 0;
  hand_over(&after);
  EXPECT_TRUE(Await([&] { return !Socket::TryConnect("127.0.0.1", after).IsOpen(); }, seconds(5)))
      << "a port that nobody drains";
  held.Send("z");
  EXPECT_EQ(held.ReadExactly(1), "z");
}

TEST(DrainTest, UnderLoadLosesNoExchangeThatHadBegun) {
  ProxyPair pair(&Echo);
  pair.Start();
  std::atomic<int> lost = 0;
  std::atomic<int> served = 0;
  std::atomic<bool> stop = false;
  std::vector<std::thread> users;
  for (int i = 0; i < 4; ++i) {
    users.emplace_back([&] {
      while (!stop) {
        Socket socket = pair.Connect();
        if (!socket.Send("first") || socket.ReadExactly(5) != "first") {
          return;  // refused: the drain has begun
        }
        for (int n = 0; n < 20; ++n) {
          lost += socket.Send("next") && socket.ReadExactly(4) == "next" ? 0 : 1;
        }
        ++served;
      }
    });
  }
  ASSERT_TRUE(Await([&] { return served > 5; }));
  std::atomic<bool> done = false;
  pair.server.worker().Drain(milliseconds(50), seconds(30), [&] { done = true; });
  EXPECT_TRUE(Await([&] { return done.load(); }));
  stop = true;
  for (std::thread& user : users) {
    user.join();
  }
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(pair.server.Closed(CloseReason::kDrainDeadline), 0U) << pair.server.Reasons();
}

TEST(DrainTest, StopResetsEverythingAndMayBeCalledTwice) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket held = pair.Connect();
  held.Send("x");
  held.ReadExactly(1);
  pair.client.Stop();
  pair.client.Stop();
  EXPECT_EQ(Name(held.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_EQ(pair.client.Open(), 0U);
}

}  // namespace
}  // namespace postern::testing
