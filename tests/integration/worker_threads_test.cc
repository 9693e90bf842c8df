// SPDX-License-Identifier: Apache-2.0
// What belongs to a worker is on its own thread: main is not disturbed by the traffic.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <thread>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

// With io_uring (libuv 1.50) the kernel breaks off a blocking call of the thread that made the
// ring.
TEST(WorkerThreadsTest, BlockingCallsOfTheMakerAreNotBrokenOff) {
  ProxyPair pair(&Echo);
  pair.Start();
  std::array<int, 2> ends{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const timeval limit{10, 0};
  setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  int served = 0;
  std::thread traffic([&] {
    for (int i = 0; i < 100; ++i) {
      Socket socket = pair.Connect();
      socket.Send("x");
      served += socket.ReadExactly(1) == "x" ? 1 : 0;
    }
    shutdown(ends[1], SHUT_WR);
  });
  char byte = 0;
  int broken_off = 0;
  ssize_t got = -1;
  while ((got = recv(ends[0], &byte, 1, 0)) < 0 && errno == EINTR) {
    ++broken_off;
  }
  traffic.join();
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(broken_off, 0);
  EXPECT_EQ(served, 100);
  EXPECT_EQ(got, 0) << "the end of the traffic";
}

config::ProxyConfig ConfigOfTunnel(const std::string& listen) {
  config::ProxyConfig config;
  config.tunnels.push_back(
      config::TunnelSpec::Parse("inbound,listen=" + listen +
                                ",target=127.0.0.1:1,peer=spiffe://example.org/web")
          .value());
  return config;
}

TEST(WorkerThreadsTest, AWorkerThatNeverStartedEnds) {
  const config::ProxyConfig config = ConfigOfTunnel("127.0.0.1:0");
  session::WorkerShared shared;
  shared.config = &config;
  auto worker = session::Worker::Create(0, shared);
  ASSERT_TRUE(worker.ok()) << worker.status();
  const uint16_t port = (*worker)->listeners().front().address.port();
  EXPECT_NE(port, 0);
  worker->reset();
  EXPECT_FALSE(Socket::TryConnect("127.0.0.1", port).IsOpen());
}

TEST(WorkerThreadsTest, AnAddressThatIsTakenIsAnErrorOfCreate) {
  const Server taken(&Echo);
  const std::string address = "127.0.0.1:" + std::to_string(taken.port());
  const config::ProxyConfig config = ConfigOfTunnel(address);
  session::WorkerShared shared;
  shared.config = &config;
  const auto worker = session::Worker::Create(0, shared);
  ASSERT_FALSE(worker.ok());
  EXPECT_NE(worker.status().message().find(address), std::string::npos) << worker.status();
}

}  // namespace
}  // namespace postern::testing
