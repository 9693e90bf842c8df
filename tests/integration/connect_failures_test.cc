// SPDX-License-Identifier: Apache-2.0
// The next hop refuses, does not answer, or has a name; the client goes away; nobody says anything.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using base::Direction;
using std::chrono::milliseconds;

// A port that answers no SYN: its queue of one is full.
class FullPort {
 public:
  FullPort() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    bind(fd_, reinterpret_cast<sockaddr*>(&address), length);
    listen(fd_, 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    for (int i = 0; i < 4; ++i) {
      const int filler = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      connect(filler, reinterpret_cast<sockaddr*>(&address), length);
      fillers_.emplace_back(filler);
    }
  }
  ~FullPort() { close(fd_); }
  uint16_t port() const { return port_; }

 private:
  int fd_;
  uint16_t port_ = 0;
  std::vector<Socket> fillers_;
};

uint16_t ClosedPort() {
  Server gone(&Echo);
  return gone.port();
}

TEST(ConnectFailuresTest, AnApplicationThatRefusesIsTold) {
  TestCa ca;
  TestProxy server;
  server.AddTunnel(Direction::kInbound, "127.0.0.1:0", "127.0.0.1:" + std::to_string(ClosedPort()),
                   {std::string(kWeb)});
  server.Start();
  server.PublishIdentity(ca, kDb);
  server.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  const Minted web = ca.Mint(kWeb);
  RawTls peer(server.Connect(), {.certificate = &web});
  EXPECT_EQ(peer.Read(1), "");
  EXPECT_TRUE(server.AwaitClosed(CloseReason::kConnectFailed)) << server.Reasons();
  EXPECT_NE(server.Failures().find("127.0.0.1:"), std::string::npos);
}

TEST(ConnectFailuresTest, ANextHopThatDoesNotAnswerIsGivenUpAtTheDeadline) {
  const FullPort full;
  TestCa ca;
  TestProxy client;
  client.config.connect_timeout = milliseconds(200);
  client.AddTunnel(Direction::kOutbound, "127.0.0.1:0", "127.0.0.1:" + std::to_string(full.port()),
                   {std::string(kDb)});
  client.Start();
  client.PublishIdentity(ca, kWeb);
  Socket socket = client.Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(client.AwaitClosed(CloseReason::kConnectTimeout)) << client.Reasons();
}

TEST(ConnectFailuresTest, AClientThatResetsWhileWeConnectEndsTheAttempt) {
  const FullPort full;
  TestCa ca;
  TestProxy client;
  client.config.connect_timeout = std::chrono::seconds(60);
  client.AddTunnel(Direction::kOutbound, "127.0.0.1:0", "127.0.0.1:" + std::to_string(full.port()),
                   {std::string(kDb)});
  client.Start();
  client.PublishIdentity(ca, kWeb);
  Socket socket = client.Connect();
  ASSERT_TRUE(Await([&] { return client.Opened() == 1; }));
  socket.Reset();
  EXPECT_TRUE(client.AwaitClosed(CloseReason::kReset)) << client.Reasons();
}

TEST(ConnectFailuresTest, ATargetMayBeAName) {
  ProxyPair pair(&Echo);
  pair.Start();
  TestProxy named;
  named.AddTunnel(Direction::kOutbound, "127.0.0.1:0",
                  "localhost:" + std::to_string(pair.server.Port()), {std::string(kDb)});
  named.AddTunnel(Direction::kOutbound, "127.0.0.1:0", "nowhere.invalid:1", {std::string(kDb)});
  named.Start();
  named.PublishIdentity(pair.ca, kWeb);
  Socket socket = named.Connect(0);  // localhost may be ::1 first, where nobody listens
  socket.Send("by name");
  EXPECT_EQ(socket.ReadExactly(7), "by name");
  Socket lost = named.Connect(1);
  EXPECT_EQ(Name(lost.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(named.AwaitClosed(CloseReason::kConnectFailed)) << named.Reasons();
  EXPECT_NE(named.Failures().find("nowhere.invalid"), std::string::npos);
}

TEST(ConnectFailuresTest, TunnelsMayListenAndDialOnUnixSockets) {
  TempDir directory;
  const std::string app_path = directory.Path("app");
  const std::string front_path = directory.Path("front");
  Server app(app_path, &Echo);
  TestCa ca;
  TestProxy server;
  server.AddTunnel(Direction::kInbound, "127.0.0.1:0", "unix:" + app_path, {std::string(kWeb)});
  server.Start();
  server.PublishIdentity(ca, kDb);
  server.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  TestProxy client;
  client.config.workers = 3;  // which share the socket
  client.AddTunnel(Direction::kOutbound, "unix:" + front_path,
                   "127.0.0.1:" + std::to_string(server.Port()), {std::string(kDb)});
  client.Start();
  client.PublishIdentity(ca, kWeb);
  for (int i = 0; i < 10; ++i) {
    Socket socket = Socket::ConnectUnix(front_path);
    socket.Send("unix");
    ASSERT_EQ(socket.ReadExactly(4), "unix");
    socket.ShutdownWrite();
    EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
  }
  client.Stop();
  server.Stop();
}

TEST(ConnectFailuresTest, AnIdleConnectionEndsAtItsLimitAndABusyOneDoesNot) {
  ProxyPair pair(&Echo);
  pair.client.config.idle_timeout = milliseconds(2000);
  pair.Start();
  Socket busy = pair.Connect();
  Socket idle = pair.Connect();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (pair.client.Closed(CloseReason::kIdleTimeout) == 0 &&
         std::chrono::steady_clock::now() < end) {
    ASSERT_TRUE(busy.Send("x"));
    ASSERT_EQ(busy.ReadExactly(1), "x");
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kIdleTimeout)) << pair.client.Reasons();
  EXPECT_NE(Name(idle.DrainToEnd()), Name(ReadEnd::kTimeout));
  busy.Send("y");
  EXPECT_EQ(busy.ReadExactly(1), "y");
}

TEST(ConnectFailuresTest, NoIdleLimitIsTheDefault) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  std::this_thread::sleep_for(milliseconds(300));
  socket.Send("x");
  EXPECT_EQ(socket.ReadExactly(1), "x");
}

}  // namespace
}  // namespace postern::testing
