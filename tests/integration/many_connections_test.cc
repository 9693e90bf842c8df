// SPDX-License-Identifier: Apache-2.0
// Thousands of connections at once and one after another, good ones beside bad ones, and the limit.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

// What a byte costs: ThreadSanitizer keeps four of its own beside each.
#if defined(__SANITIZE_THREAD__)
constexpr size_t kShadow = 5;
#else
constexpr size_t kShadow = 1;
#endif

using base::CloseReason;

// Without a thread for each connection: the application of tests with thousands of them.
class EchoPoller {
 public:
  EchoPoller();
  ~EchoPoller();
  uint16_t port() const { return port_; }

 private:
  void Run();
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

EchoPoller::EchoPoller() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  bind(listener_, reinterpret_cast<sockaddr*>(&address), length);
  listen(listener_, 4096);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

EchoPoller::~EchoPoller() {
  stop_ = true;
  thread_.join();
  close(listener_);
}

void EchoPoller::Run() {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const auto add = [epoll](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  };
  add(listener_);
  std::vector<epoll_event> events(256);
  std::vector<char> buffer(1U << 16U);
  while (!stop_) {
    const int n = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 20);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == listener_) {
        add(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
        continue;
      }
      const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
      if (got <= 0 || send(fd, buffer.data(), static_cast<size_t>(got), MSG_NOSIGNAL) != got) {
        close(fd);
      }
    }
  }
  close(epoll);
}

class ManyConnectionsTest : public ::testing::Test {
 protected:
  void Start() {
    server_.AddTunnel(base::Direction::kInbound, "127.0.0.1:0",
                      "127.0.0.1:" + std::to_string(app_.port()), {std::string(kWeb)});
    server_.Start();
    server_.PublishIdentity(ca_, kDb);
    server_.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
    client_.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                      "127.0.0.1:" + std::to_string(server_.Port()), {std::string(kDb)});
    client_.Start();
    client_.PublishIdentity(ca_, kWeb);
  }
  ~ManyConnectionsTest() override {
    client_.Stop();
    server_.Stop();
  }
  void Churn(int count) {
    for (int i = 0; i < count; ++i) {
      Socket socket = client_.Connect();
      ASSERT_TRUE(socket.Send("x"));
      ASSERT_EQ(socket.ReadExactly(1), "x");
      if (i % 3 == 0) {
        socket.Reset();
      }
    }
    ASSERT_TRUE(client_.AwaitIdle()) << client_.Reasons();
    ASSERT_TRUE(server_.AwaitIdle()) << server_.Reasons();
  }

  TestCa ca_;
  EchoPoller app_;
  TestProxy server_;
  TestProxy client_;
};

TEST_F(ManyConnectionsTest, TwoThousandAtOnceThroughOnePair) {
  constexpr size_t kCount = 2000;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 6 * kCount + 200) {
    GTEST_SKIP() << "six descriptors for each connection are needed, the limit is "
                 << limit.rlim_cur;
  }
  // All at once on a busy machine: the queue for the CPU is not what is tested.
  server_.config.handshake_timeout = std::chrono::seconds(120);
  client_.config.handshake_timeout = std::chrono::seconds(120);
  Start();
  std::vector<Socket> sockets;
  for (size_t i = 0; i < kCount; ++i) {
    sockets.push_back(client_.Connect());
    sockets.back().SetTimeout(std::chrono::seconds(120));
  }
  for (size_t i = 0; i < kCount; ++i) {
    ASSERT_TRUE(sockets[i].Send("connection " + std::to_string(i)));
  }
  for (size_t i = 0; i < kCount; ++i) {
    const std::string text = "connection " + std::to_string(i);
    ASSERT_EQ(sockets[i].ReadExactly(text.size()), text);
  }
  EXPECT_EQ(server_.Open(), kCount);
  EXPECT_EQ(client_.Open(), kCount);
  sockets.clear();
  EXPECT_TRUE(client_.AwaitIdle()) << client_.Reasons();
  EXPECT_TRUE(server_.AwaitIdle()) << server_.Reasons();
}

TEST_F(ManyConnectionsTest, OneAfterAnotherLeavesNoDescriptorAndNoMemory) {
  Start();
  Churn(300);  // warms allocator and caches
  ASSERT_TRUE(Await([] { return OpenDescriptors() < 60; })) << OpenDescriptors();
  const size_t descriptors = OpenDescriptors();
  const size_t memory = ResidentBytes();
  Churn(2000);
  EXPECT_TRUE(Await([&] { return OpenDescriptors() <= descriptors; }))
      << OpenDescriptors() << " descriptors, before " << descriptors;
  // 2000 connections that left a kilobyte each would show.
  const size_t limit = memory + kShadow * (size_t{2} << 20U);
  EXPECT_TRUE(Await([limit] { return ResidentBytes() < limit; }))
      << ResidentBytes() << " bytes, before " << memory;
}

// A failed handshake leaves errors in a thread's OpenSSL queue: they must not reach a neighbour.
TEST_F(ManyConnectionsTest, BadClientsBesideGoodOnesHurtNobody) {
  Start();
  std::atomic<bool> stop = false;
  std::thread vandal([&] {
    int i = 0;
    while (!stop) {
      Socket bad = server_.Connect();
      switch (i++ % 4) {
        case 0:
          bad.Send("GET / HTTP/1.0\r\n\r\n");
          break;
        case 1:
          bad.Send(std::string("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10));
          break;
        case 2:
          bad.Send(Pattern(500, static_cast<uint64_t>(i)));
          break;
        default:
          bad.Reset();
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  std::vector<std::thread> good;
  std::atomic<int> errors = 0;
  for (int t = 0; t < 4; ++t) {
    good.emplace_back([&, t] {
      const std::string data = Pattern(300000, static_cast<uint64_t>(t));
      for (int i = 0; i < 25; ++i) {
        Socket socket = client_.Connect();
        std::thread sender([&] { socket.Send(data); });
        errors += socket.ReadExactly(data.size()) == data ? 0 : 1;
        sender.join();
      }
    });
  }
  for (std::thread& thread : good) {
    thread.join();
  }
  stop = true;
  vandal.join();
  EXPECT_EQ(errors, 0) << server_.Reasons();
  EXPECT_GT(server_.Closed(CloseReason::kPlaintextRefused), 0U);
}

TEST_F(ManyConnectionsTest, TheLimitStopsAcceptingAndRoomResumesIt) {
  server_.config.max_connections = 5;
  Start();
  std::vector<Socket> sockets;
  for (int i = 0; i < 5; ++i) {
    sockets.push_back(client_.Connect());
    ASSERT_TRUE(sockets.back().Send("x"));
    ASSERT_EQ(sockets.back().ReadExactly(1), "x");
  }
  Socket waits = client_.Connect();
  waits.Send("y");
  ASSERT_TRUE(Await([&] { return client_.Opened() == 6; }));
  EXPECT_EQ(server_.Opened(), 5U);
  EXPECT_EQ(server_.worker().metrics().accept_paused.value(), 2U) << "once for each direction";
  sockets.pop_back();
  EXPECT_EQ(waits.ReadExactly(1), "y");
  EXPECT_EQ(server_.Opened(), 6U);
}

TEST_F(ManyConnectionsTest, SeveralWorkersShareAPort) {
  server_.config.workers = 3;
  Start();
  std::vector<Socket> sockets;
  for (int i = 0; i < 60; ++i) {
    sockets.push_back(client_.Connect());
    sockets.back().Send("x");
    ASSERT_EQ(sockets.back().ReadExactly(1), "x");
  }
  int used = 0;
  for (size_t i = 0; i < 3; ++i) {
    used += server_.worker(i).metrics().opened[0].value() > 0 ? 1 : 0;
  }
  EXPECT_GE(used, 2);
  EXPECT_EQ(server_.Opened(), 60U);
}

}  // namespace
}  // namespace postern::testing
