// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/existing.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "common/base/unique_fd.h"
#include "tests/testing/sockets.h"

namespace postern::intercept {
namespace {

constexpr std::string_view kHead =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n";

std::string Line(std::string_view peer, std::string_view state, std::string_view uid) {
  return "   0: 0100007F:1F90 " + std::string(peer) + ":9C40 " + std::string(state) +
         " 00000000:00000000 00:00000000 00000000  " + std::string(uid) + "        0 7 1\n";
}

TEST(CountInTableTest, CountsOpenConnectionsToOtherHosts) {
  const std::string table = std::string(kHead) + Line("020012C6", "01", "1000") +
                            Line("00005B00000000000000000002000000", "01", "0");
  EXPECT_EQ(CountInTable(table, InterceptConfig()), 2U);
}

TEST(CountInTableTest, PassesOverLoopbackListenersAndTheProxy) {
  InterceptConfig config;
  config.proxy_uids = {901};
  const std::string table = std::string(kHead) + Line("0100007F", "01", "1000") +
                            Line("00000000000000000000000001000000", "01", "0") +
                            Line("0000000000000000FFFF00000100007F", "01", "0") +
                            Line("00000000", "0A", "0") + Line("020012C6", "06", "0") +
                            Line("020012C6", "01", "901");
  EXPECT_EQ(CountInTable(table, config), 0U);
}

TEST(CountInTableTest, SurvivesAnythingElse) {
  EXPECT_EQ(CountInTable("", InterceptConfig()), 0U);
  EXPECT_EQ(CountInTable("\n\n 1 2 3", InterceptConfig()), 0U);
  EXPECT_EQ(CountInTable(kHead, InterceptConfig()), 0U);
}

TcpSocket Open(std::string_view local, uint16_t local_port, std::string_view peer,
               uint16_t peer_port, uid_t uid = 1000) {
  TcpSocket socket;
  socket.local_ip = base::IpAddress::Parse(local).value();
  socket.local_port = local_port;
  socket.peer_ip = base::IpAddress::Parse(peer).value();
  socket.peer_port = peer_port;
  socket.uid = uid;
  return socket;
}

TcpSocket Listening(uint16_t port) {
  TcpSocket socket = Open("::", port, "::", 0);
  socket.listening = true;
  return socket;
}

constexpr char kHere[] = "198.18.0.1";
constexpr char kThere[] = "198.18.0.2";

size_t Past(const std::vector<TcpSocket>& sockets, const InterceptConfig& config) {
  return OpenedPastTheRules(sockets, config).size();
}

TEST(OpenedPastTheRulesTest, FindsInboundAndOutboundConnections) {
  const std::vector<TcpSocket> sockets = {Listening(8080), Open(kHere, 8080, kThere, 40000),
                                          Open(kHere, 40001, kThere, 443),
                                          Open("fd00:5b::1", 40001, "fd00:5b::2", 443)};
  InterceptConfig config;
  EXPECT_EQ(Past(sockets, config), 3U);
  config.inbound = false;
  EXPECT_EQ(Past(sockets, config), 2U);
  config.inbound = true;
  config.outbound = false;
  EXPECT_EQ(Past(sockets, config), 1U);
}

TEST(OpenedPastTheRulesTest, LeavesTheProxyLoopbackAndThisHost) {
  InterceptConfig config;
  config.proxy_uids = {901};
  config.proxy_mark = 7;
  TcpSocket marked = Open(kHere, 40000, kThere, 443);
  marked.mark = 7;
  EXPECT_EQ(Past({marked}, config), 0U);
  EXPECT_EQ(Past({Open(kHere, 40000, kThere, 443, 901)}, config), 0U);
  EXPECT_EQ(Past({Open("127.0.0.1", 40000, "127.0.0.1", 443)}, config), 0U);
  EXPECT_EQ(
      Past({Listening(8080), Open(kHere, 40000, kHere, 8080), Open(kHere, 8080, kHere, 40000)},
           config),
      0U);
}

TEST(OpenedPastTheRulesTest, LeavesWhatTheProxyCarriesAlready) {
  const TcpSocket application = Open(kHere, 40000, kThere, 443);
  const TcpSocket proxys = Open("127.0.0.1", 15001, kHere, 40000, 901);
  InterceptConfig config;
  config.proxy_uids = {901};
  EXPECT_EQ(Past({application, proxys}, config), 0U);
  EXPECT_EQ(Past({application}, config), 1U);
}

TEST(OpenedPastTheRulesTest, LeavesWhatIsExcludedInbound) {
  TcpSocket ssh = Open(kHere, 22, kThere, 40000);
  ssh.interface = "eth1";
  const std::vector<TcpSocket> sockets = {Listening(22), ssh};
  InterceptConfig config;
  ASSERT_EQ(Past(sockets, config), 1U);
  config.exclude_inbound_ports = {{20, 25}};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.exclude_inbound_cidrs = {base::Cidr::Parse("198.18.0.0/24").value()};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.inbound_ports = {{8080, 8080}};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.exclude_interfaces = {"eth1"};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.own_ports = {22};
  EXPECT_EQ(Past(sockets, config), 0U);
}

TEST(OpenedPastTheRulesTest, LeavesWhatIsExcludedOutbound) {
  const std::vector<TcpSocket> sockets = {Open(kHere, 40000, kThere, 443)};
  InterceptConfig config;
  config.exclude_outbound_ports = {{443, 443}};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.exclude_outbound_cidrs = {base::Cidr::Parse("198.18.0.0/24").value()};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.outbound_cidrs = {base::Cidr::Parse("198.19.0.0/24").value()};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.outbound_ports = {{80, 80}};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.exclude_uids = {1000};
  EXPECT_EQ(Past(sockets, config), 0U);
  config = {};
  config.app_uids = {1001};
  EXPECT_EQ(Past(sockets, config), 0U);
  config.app_uids = {1000};
  EXPECT_EQ(Past(sockets, config), 1U);
}

TEST(OpenedPastTheRulesTest, RefusesRulesThatGoByGroup) {
  InterceptConfig config;
  EXPECT_TRUE(CheckKillExisting(config).ok());
  config.exclude_gids = {7};
  EXPECT_TRUE(absl::IsInvalidArgument(CheckKillExisting(config)));
}

// The kernel's own answer, with a connection of this process.
TEST(TcpSocketsTest, FindsOpenConnectionsAndListeners) {
  const testing::Server server(&testing::Echo);
  const testing::Socket socket = testing::Socket::Connect("127.0.0.1", server.port());
  const auto sockets = ReadTcpSockets();
  ASSERT_TRUE(sockets.ok()) << sockets.status();
  int listeners = 0;
  int dialled = 0;
  for (const TcpSocket& one : *sockets) {
    listeners += one.listening && one.local_port == server.port() ? 1 : 0;
    dialled += !one.listening && one.peer_port == server.port() ? 1 : 0;
    if (one.peer_port == server.port()) {
      EXPECT_EQ(one.peer_ip.ToString(), "127.0.0.1");
      EXPECT_EQ(one.interface, "lo");
      EXPECT_EQ(one.uid, geteuid());
    }
  }
  EXPECT_EQ(listeners, 1);
  EXPECT_EQ(dialled, 1);
}

TEST(TcpSocketsTest, FindsAConnectionThatNobodyHasAcceptedYet) {
  for (const char* const text : {"127.0.0.1", "::1"}) {
    const net::SocketAddress any(base::IpAddress::Parse(text).value(), 0);
    sockaddr_storage storage{};
    socklen_t length = any.ToSockaddr(&storage);
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    const base::UniqueFd listener(socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!listener.is_open() || bind(listener.get(), address, length) != 0) {
      ASSERT_STREQ(text, "::1") << "a host without IPv6";
      continue;
    }
    ASSERT_EQ(listen(listener.get(), 4), 0);
    ASSERT_EQ(getsockname(listener.get(), address, &length), 0);
    const net::SocketAddress at = net::SocketAddress::FromSockaddr(address, length).value();
    const base::UniqueFd dialled(socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(dialled.get(), address, length), 0);
    ASSERT_EQ(getsockname(dialled.get(), address, &length), 0);
    const net::SocketAddress from = net::SocketAddress::FromSockaddr(address, length).value();

    EXPECT_EQ(HasTcpConnection(at, from).value(), true);
    EXPECT_EQ(HasTcpConnection(from, at).value(), true) << "its other end";
    const net::SocketAddress stranger(from.ip(), static_cast<uint16_t>(from.port() ^ 1));
    EXPECT_EQ(HasTcpConnection(at, stranger).value(), false) << "only somebody who listens";
    EXPECT_EQ(HasTcpConnection(stranger, from).value(), false) << "nobody at all";
  }
}

}  // namespace
}  // namespace postern::intercept
