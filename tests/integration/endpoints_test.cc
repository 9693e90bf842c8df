// SPDX-License-Identifier: Apache-2.0
// Several endpoints for one destination: what fails before a byte has flown is tried elsewhere,
// what failed lately is left alone, and names are resolved again when their TTL has passed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "tests/fakes/fake_endpoint_directory.h"
#include "tests/testing/dns_server.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using base::Direction;
using std::chrono::milliseconds;
using telemetry::WorkerMetrics;
using ::testing::HasSubstr;

// Connections of which one goes to each of two endpoints for certain.
constexpr int kUntilChancePicksEach = 64;

base::IpAddress Ip(const std::string& text) {
  return base::IpAddress::Parse(text).value();
}

uint16_t ClosedPort() {
  Server gone(&Echo);
  return gone.port();
}

// A member of the mesh that says who it is.
class Member {
 public:
  Member(const TestCa& ca, std::string_view id, std::string word)
      : certificate_(ca.Mint(id)), word_(std::move(word)), server_([this](Socket socket) {
          RawTls tls(std::move(socket), {.certificate = &certificate_, .server = true});
          if (!tls.Read(100).empty()) {
            tls.Send(word_);
            tls.Read(1);
          }
        }) {}
  uint16_t port() const { return server_.port(); }
  int accepted() const { return server_.accepted(); }

 private:
  const Minted certificate_;
  const std::string word_;
  Server server_;
};

class EndpointsTest : public ::testing::Test {
 protected:
  EndpointsTest() {
    proxy_.config.intercept = config::InterceptMode::kRedirect;
    proxy_.config.inbound_port = 0;
    proxy_.config.outbound_port = 0;
    proxy_.config.handshake_timeout = milliseconds(1500);
    proxy_.config.connect_timeout = milliseconds(1500);
    config::AddressSpec server;
    server.host = "127.0.0.1";
    server.port = dns_.port();
    proxy_.config.name_servers.push_back(server);
    proxy_.shared.endpoints = &directory_;
    proxy_.shared.original_destination = [this](const net::Stream&,
                                                bool) -> absl::StatusOr<net::SocketAddress> {
      return destination_;
    };
    record_.expected.push_back(x509::SpiffeIdPattern::Parse(kDb).value());
  }
  ~EndpointsTest() override { proxy_.Stop(); }
  void Add(uint16_t port) { record_.endpoints.push_back({Ip("127.0.0.1"), "", port}); }
  void Start() {
    directory_.Set(destination_, record_);
    proxy_.Start();
    proxy_.PublishIdentity(ca_, kWeb);
  }
  // The word of the member that a connection ends at; empty: it failed.
  std::string Ask() {
    Socket socket = Socket::Connect("127.0.0.1", proxy_.PortOf("outbound"));
    socket.Send("who?");
    return socket.Read(100);
  }
  const WorkerMetrics& metrics() { return proxy_.worker().metrics(); }
  uint64_t Retries(CloseReason reason) {
    return metrics().endpoint_retries[static_cast<size_t>(reason)].value();
  }
  uint64_t Failing() {
    return metrics().endpoints_failing_began.value() - metrics().endpoints_failing_ended.value();
  }

  TestCa ca_;
  DnsServer dns_;
  fakes::FakeEndpointDirectory directory_;
  const net::SocketAddress destination_{Ip("198.18.7.7"), 80};
  config::MeshDestination record_;
  TestProxy proxy_;
};

TEST_F(EndpointsTest, EachConnectionFindsTheEndpointThatIsThere) {
  Member member(ca_, kDb, "here");
  Add(ClosedPort());
  Add(member.port());
  Start();
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(Ask(), "here") << proxy_.Reasons();
  }
  EXPECT_EQ(Retries(CloseReason::kConnectFailed), metrics().endpoint_failures.value());
  // Left alone for 1, 2, 4 and 8 s: whoever is this slow has still not tried it more often.
  EXPECT_LE(Retries(CloseReason::kConnectFailed), 5U);
}

TEST_F(EndpointsTest, ConnectionsAreSpreadOverTheEndpoints) {
  Member one(ca_, kDb, "one");
  Member two(ca_, kDb, "two");
  Add(one.port());
  Add(two.port());
  Start();
  std::vector<Socket> open;
  for (int i = 0; i < 20; ++i) {
    open.push_back(Socket::Connect("127.0.0.1", proxy_.PortOf("outbound")));
    open.back().Send("who?");
    EXPECT_FALSE(open.back().Read(100).empty()) << proxy_.Reasons();
  }
  // With two endpoints both are looked at each time, and the one with fewer connections taken.
  EXPECT_EQ(one.accepted(), 10);
  EXPECT_EQ(two.accepted(), 10);
}

TEST_F(EndpointsTest, AnotherIdentityIsTriedElsewhereAndReported) {
  Member wrong(ca_, "spiffe://example.org/other", "wrong");
  Member right(ca_, kDb, "right");
  Add(wrong.port());
  Add(right.port());
  Start();
  for (int i = 0; i < 10 || (i < kUntilChancePicksEach && wrong.accepted() == 0); ++i) {
    ASSERT_EQ(Ask(), "right") << proxy_.Reasons();
  }
  ASSERT_GE(wrong.accepted(), 1);
  EXPECT_GE(Retries(CloseReason::kIdentityMismatch), 1U);
  EXPECT_EQ(Failing(), 1U);
  EXPECT_THAT(proxy_.Failures(), HasSubstr("identity_mismatch"));
  EXPECT_THAT(proxy_.Failures(), HasSubstr("another endpoint is tried"));
}

TEST_F(EndpointsTest, AStalledHandshakeIsTriedElsewhereInItsShareOfTheTime) {
  Server silent([](Socket socket) { socket.DrainToEnd(); });
  Member member(ca_, kDb, "here");
  Add(silent.port());
  Add(member.port());
  Start();
  for (int i = 0; i < kUntilChancePicksEach && silent.accepted() == 0; ++i) {
    ASSERT_EQ(Ask(), "here") << proxy_.Reasons();
  }
  ASSERT_EQ(silent.accepted(), 1);
  EXPECT_EQ(Retries(CloseReason::kHandshakeTimeout), 1U);
}

TEST_F(EndpointsTest, AttemptsAreBounded) {
  std::vector<std::unique_ptr<Member>> wrong;
  for (int i = 0; i < 6; ++i) {
    wrong.push_back(std::make_unique<Member>(ca_, "spiffe://example.org/other", "wrong"));
    Add(wrong.back()->port());
  }
  Start();
  EXPECT_EQ(Ask(), "");
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kIdentityMismatch)) << proxy_.Reasons();
  EXPECT_EQ(metrics().endpoint_failures.value(), 3U);
  EXPECT_EQ(Retries(CloseReason::kIdentityMismatch), 2U);
}

TEST_F(EndpointsTest, OneThatHasRecoveredIsUsedAgain) {
  const uint16_t first = ClosedPort();
  const uint16_t second = ClosedPort();
  Add(first);
  Add(second);
  Start();
  EXPECT_EQ(Ask(), "");
  EXPECT_EQ(Failing(), 2U);
  record_.endpoints.clear();
  Member member(ca_, kDb, "back");
  Add(member.port());
  Add(second);
  directory_.Set(destination_, record_);
  EXPECT_EQ(Ask(), "back");
}

TEST_F(EndpointsTest, NamesAmongTheEndpointsAreResolved) {
  Member member(ca_, kDb, "here");
  dns_.Set("db-1.example", {"127.0.0.1"}, 60);
  record_.endpoints.push_back({std::nullopt, "db-1.example", member.port()});
  record_.endpoints.push_back({std::nullopt, "gone.example", member.port()});
  Start();
  EXPECT_EQ(Ask(), "here") << proxy_.Reasons();
}

// A tunnel's target by name, on an address for each server.
class NamedTunnelTest : public ::testing::Test {
 protected:
  NamedTunnelTest() : pair_(&Echo) {
    pair_.Start();
    config::AddressSpec server;
    server.host = "127.0.0.1";
    server.port = dns_.port();
    named_.config.name_servers.push_back(server);
    named_.AddTunnel(Direction::kOutbound, "127.0.0.1:0",
                     base::StrCat("db.example:", pair_.server.Port()), {std::string(kDb)});
  }
  ~NamedTunnelTest() override { named_.Stop(); }
  void Start() {
    named_.Start();
    named_.PublishIdentity(pair_.ca, kWeb);
  }
  bool Echoes() {
    Socket socket = named_.Connect();
    socket.Send("hello");
    return socket.Read(5) == "hello";
  }
  uint64_t Names(telemetry::NameResult result) {
    return named_.worker().metrics().names[static_cast<size_t>(result)].value();
  }

  DnsServer dns_;
  ProxyPair pair_;
  TestProxy named_;
};

TEST_F(NamedTunnelTest, FollowsItsNameWithinTheTtl) {
  dns_.Set("db.example", {"127.0.0.66"}, 1);  // nobody there
  Start();
  EXPECT_FALSE(Echoes());
  dns_.Set("db.example", {"127.0.0.1"}, 1);
  EXPECT_TRUE(Await([&] { return Echoes(); }, milliseconds(6000))) << named_.Reasons();
  EXPECT_GE(Names(telemetry::NameResult::kResolved), 2U);
}

TEST_F(NamedTunnelTest, ResolvesOnceForManyConnections) {
  dns_.Set("db.example", {"127.0.0.1"}, 60);
  Start();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(Echoes());
  }
  EXPECT_EQ(dns_.QuestionsFor("db.example"), 2);  // A and AAAA
}

TEST_F(NamedTunnelTest, GoesOnWhileTheNameServerIsAway) {
  dns_.Set("db.example", {"127.0.0.1"}, 1);
  Start();
  Socket open = named_.Connect();
  open.Send("x");
  ASSERT_EQ(open.ReadExactly(1), "x");
  dns_.SetMood(DnsServer::Mood::kFails);
  ASSERT_TRUE(Await([&] { return Echoes() && Names(telemetry::NameResult::kFailed) > 0; }))
      << named_.Reasons();
  EXPECT_TRUE(Echoes());
  EXPECT_GE(Names(telemetry::NameResult::kStale), 1U);
  dns_.SetMood(DnsServer::Mood::kSilent);
  EXPECT_TRUE(Echoes());
  open.Send("y");
  EXPECT_EQ(open.ReadExactly(1), "y");
}

TEST_F(NamedTunnelTest, TriesTheOtherAddressesOfItsName) {
  dns_.Set("db.example", {"127.0.0.66", "127.0.0.67", "127.0.0.1"}, 60);
  Start();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Echoes()) << named_.Reasons();
  }
  EXPECT_LE(named_.worker().metrics().endpoint_failures.value(), 10U);  // five each, as above
}

}  // namespace
}  // namespace postern::testing
