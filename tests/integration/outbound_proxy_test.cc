// SPDX-License-Identifier: Apache-2.0
// The outbound proxy port: SOCKS5 and HTTP CONNECT on one port, the same way as what is
// intercepted, and a client that is told how it ended.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "common/base/strings.h"
#include "tests/fakes/fake_endpoint_directory.h"
#include "tests/testing/dns_server.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using std::chrono::milliseconds;
using telemetry::PlaintextReason;
using telemetry::Security;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace std::string_literals;

const std::string kHello = "\x05\x01\x00"s;
const std::string kTakesNone = "\x05\x00"s;

std::string Port(uint16_t port) {
  return {static_cast<char>(port >> 8U), static_cast<char>(port & 0xFFU)};
}

std::string SocksTo(uint16_t port) {
  return "\x05\x01\x00\x01\x7f\x00\x00\x01"s + Port(port);
}

std::string SocksTo(std::string_view name, uint16_t port) {
  return "\x05\x01\x00\x03"s + static_cast<char>(name.size()) + std::string(name) + Port(port);
}

std::string ConnectTo(std::string_view host, uint16_t port) {
  return base::StrCat("CONNECT ", host, ":", port, " HTTP/1.1\r\nHost: ", host, "\r\n\r\n");
}

std::string SocksReply(int code) {
  return "\x05"s + static_cast<char>(code) + "\x00\x01"s + std::string(6, '\0');
}

config::MeshDestination Expecting(std::string_view id) {
  config::MeshDestination destination;
  destination.expected.push_back(x509::SpiffeIdPattern::Parse(id).value());
  return destination;
}

net::SocketAddress Loopback(uint16_t port) {
  return {base::IpAddress::Parse("127.0.0.1").value(), port};
}

uint16_t ClosedPort() {
  Server gone(&Echo);
  return gone.port();
}

class OutboundProxyTest : public ::testing::Test {
 protected:
  OutboundProxyTest()
      : db_(ca_.Mint(kDb)), app_(&Echo), peer_([this](Socket accepted) {
          RawTls tls(std::move(accepted), {.certificate = &db_, .server = true});
          const std::string got = tls.Read(100);
          if (!got.empty()) {
            tls.Send("mTLS: " + got);
            tls.CloseNotify();
            tls.DrainToCleanEnd();
          }
        }) {
    config::AddressSpec address;
    address.host = "127.0.0.1";
    proxy_.config.outbound_proxies.push_back(address);
    address.port = dns_.port();
    proxy_.config.name_servers.push_back(address);
    proxy_.shared.endpoints = &directory_;
  }
  ~OutboundProxyTest() override { proxy_.Stop(); }

  void Start() {
    proxy_.Start();
    proxy_.PublishIdentity(ca_, kWeb);
  }
  // What a SOCKS client is told about its request; its connection is `socket` then.
  std::string Socks(const std::string& request, std::string_view early = "") {
    socket = proxy_.Connect();
    socket.Send(kHello);
    EXPECT_EQ(socket.ReadExactly(2), kTakesNone);
    socket.Send(request + std::string(early));
    return socket.ReadExactly(10);
  }
  // The head of the answer that an HTTP client gets.
  std::string Http(const std::string& request) {
    socket = proxy_.Connect();
    socket.Send(request);
    std::string head;
    while (head.find("\r\n\r\n") == std::string::npos) {
      const std::string byte = socket.Read(1);
      if (byte.empty()) {
        break;
      }
      head += byte;
    }
    return head;
  }
  void ExpectEcho() {
    socket.Send("hello");
    EXPECT_EQ(socket.ReadExactly(5), "hello");
  }
  void ExpectMutualTls() {
    socket.Send("hello");
    EXPECT_EQ(socket.ReadExactly(11), "mTLS: hello");
    EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 1U);
  }
  // Refused for `reason`: both kinds of client are told, and read a proper end after it.
  void ExpectRefused(const std::string& socks, const std::string& http, CloseReason reason,
                     int code, int status) {
    EXPECT_EQ(Socks(socks), SocksReply(code));
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kEnd));
    const std::string head = Http(http);
    EXPECT_THAT(head, StartsWith(base::StrCat("HTTP/1.1 ", status, " ")));
    EXPECT_THAT(head, HasSubstr(base::StrCat("\r\nPostern-Close-Reason: ", base::Token(reason))));
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kEnd));
    socket.Close();
    EXPECT_TRUE(proxy_.AwaitClosed(reason, 2)) << proxy_.Reasons();
  }

  TestCa ca_;
  const Minted db_;
  fakes::FakeEndpointDirectory directory_;
  DnsServer dns_;
  Server app_;
  Server peer_;
  TestProxy proxy_;
  Socket socket;
};

TEST_F(OutboundProxyTest, PassesWhatIsNotOfTheMesh) {
  Start();
  EXPECT_EQ(Socks(SocksTo(app_.port())), SocksReply(0));
  ExpectEcho();
  EXPECT_THAT(Http(ConnectTo("127.0.0.1", app_.port())), StartsWith("HTTP/1.1 200 "));
  ExpectEcho();
  socket.ShutdownWrite();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 2U);
}

TEST_F(OutboundProxyTest, KeepsWhatComesBehindTheRequest) {
  Start();
  EXPECT_EQ(Socks(SocksTo(app_.port()), "early"), SocksReply(0));
  EXPECT_EQ(socket.ReadExactly(5), "early");
  EXPECT_THAT(Http(ConnectTo("127.0.0.1", app_.port()) + "early"), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(socket.ReadExactly(5), "early");
  // A client that does not wait for any answer.
  socket = proxy_.Connect();
  socket.Send(kHello + SocksTo(app_.port()) + "early");
  EXPECT_EQ(socket.ReadExactly(17), kTakesNone + SocksReply(0) + "early");
}

TEST_F(OutboundProxyTest, TakesARequestByteByByte) {
  Start();
  socket = proxy_.Connect();
  for (const char byte : kHello + SocksTo(app_.port())) {
    socket.Send(std::string(1, byte));
  }
  EXPECT_EQ(socket.ReadExactly(12), kTakesNone + SocksReply(0));
  ExpectEcho();
}

TEST_F(OutboundProxyTest, GetsMutualTlsToAnAddressOfTheMesh) {
  directory_.Set(Loopback(peer_.port()), Expecting(kDb));
  Start();
  EXPECT_EQ(Socks(SocksTo(peer_.port())), SocksReply(0));
  ExpectMutualTls();
}

TEST_F(OutboundProxyTest, GetsMutualTlsToANameThatTheDestinationsHold) {
  config::MeshDestination named = Expecting(kDb);
  named.endpoints = {{base::IpAddress::Parse("127.0.0.1").value(), "", peer_.port()}};
  directory_.SetName("db.example", named);
  Start();
  EXPECT_EQ(Socks(SocksTo("DB.Example", 5432)), SocksReply(0));
  ExpectMutualTls();
  EXPECT_EQ(dns_.questions(), 0);
  socket.Close();
  ASSERT_TRUE(proxy_.AwaitIdle());
  EXPECT_THAT(proxy_.AccessLog(), HasSubstr("\"destination\":\"db.example:5432\""));
}

TEST_F(OutboundProxyTest, ResolvesANameThatHasNoEndpoints) {
  directory_.SetName("db.example", Expecting(kDb));
  dns_.Set("db.example", {"127.0.0.1"}, 60);
  Start();
  EXPECT_EQ(Socks(SocksTo("db.example", peer_.port())), SocksReply(0));
  ExpectMutualTls();
}

TEST_F(OutboundProxyTest, LooksTheAddressesOfOtherNamesUp) {
  dns_.Set("db.example", {"127.0.0.1"}, 60);
  dns_.Set("app.example", {"127.0.0.1"}, 60);
  directory_.Set(Loopback(peer_.port()), Expecting(kDb));
  directory_.AnswerLater();
  Start();
  EXPECT_EQ(Socks(SocksTo("db.example", peer_.port())), SocksReply(0));
  ExpectMutualTls();
  EXPECT_EQ(Socks(SocksTo("app.example", app_.port())), SocksReply(0));
  ExpectEcho();
}

TEST_F(OutboundProxyTest, ANameWithOneAddressInTheMeshIsNeverPlaintext) {
  dns_.Set("db.example", {"127.0.0.1", "127.0.0.9"}, 60);
  const uint16_t closed = ClosedPort();
  directory_.Set({base::IpAddress::Parse("127.0.0.9").value(), closed}, Expecting(kDb));
  Start();
  ExpectRefused(SocksTo("db.example", closed), ConnectTo("db.example", closed),
                CloseReason::kConnectFailed, 5, 502);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 0U);
}

TEST_F(OutboundProxyTest, ANameWithAnAddressThatLeftTheMeshIsNeverPlaintext) {
  dns_.Set("db.example", {"127.0.0.1", "127.0.0.9"}, 60);
  directory_.Set({base::IpAddress::Parse("127.0.0.9").value(), app_.port()},
                 absl::FailedPreconditionError("was of the mesh once"));
  Start();
  ExpectRefused(SocksTo("db.example", app_.port()), ConnectTo("db.example", app_.port()),
                CloseReason::kMeshDowngrade, 2, 403);
  EXPECT_EQ(app_.accepted(), 0);
}

TEST_F(OutboundProxyTest, ANameThatMustBeMutualTlsIsNeverPlaintext) {
  dns_.Set("db.example", {"127.0.0.1", "127.0.0.9"}, 60);
  dns_.Set("a.b.corp.example", {"127.0.0.1"}, 60);
  dns_.Set("corp.example", {"127.0.0.1"}, 60);
  for (const char* const banned : {"DB.example.", "*.corp.example"}) {
    ASSERT_TRUE(proxy_.config.require_mtls.Add(banned).ok());
  }
  Start();
  const uint16_t port = app_.port();
  ExpectRefused(SocksTo("Db.example", port), ConnectTo("db.example.", port),
                CloseReason::kMtlsRequired, 2, 403);
  EXPECT_EQ(Socks(SocksTo("a.b.corp.example", port)), SocksReply(2));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kMtlsRequired, 3)) << proxy_.Reasons();
  EXPECT_EQ(app_.accepted(), 0);
  EXPECT_EQ(Socks(SocksTo("corp.example", port)), SocksReply(0));
  ExpectEcho();
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 1U);
}

TEST_F(OutboundProxyTest, ANameThatMustBeMutualTlsIsReachedInTheMesh) {
  dns_.Set("db.example", {"127.0.0.1"}, 60);
  directory_.Set(Loopback(peer_.port()), Expecting(kDb));
  ASSERT_TRUE(proxy_.config.require_mtls.Add("*.example").ok());
  Start();
  EXPECT_EQ(Socks(SocksTo("db.example", peer_.port())), SocksReply(0));
  ExpectMutualTls();
}

TEST_F(OutboundProxyTest, ANameThatLedIntoTheMeshIsNeverPlaintextElsewhere) {
  dns_.Set("db.example", {"127.0.0.1"}, 60);
  dns_.Set("app.example", {"127.0.0.1"}, 60);
  directory_.Set(Loopback(peer_.port()), Expecting(kDb));
  Start();
  EXPECT_EQ(Socks(SocksTo("db.example", peer_.port())), SocksReply(0));
  ExpectMutualTls();
  socket.Close();
  directory_.Set(Loopback(peer_.port()), std::optional<config::MeshDestination>());
  const int accepted = peer_.accepted();
  ExpectRefused(SocksTo("DB.example", peer_.port()), ConnectTo("db.example.", peer_.port()),
                CloseReason::kMeshDowngrade, 2, 403);
  EXPECT_EQ(peer_.accepted(), accepted);
  EXPECT_EQ(Socks(SocksTo("app.example", app_.port())), SocksReply(0)) << "it never did";
}

TEST_F(OutboundProxyTest, ANameThatTheDestinationsHeldIsNeverPlaintextAfterwards) {
  directory_.SetName("db.example", Expecting(kDb));
  dns_.Set("db.example", {"127.0.0.1"}, 60);
  Start();
  EXPECT_EQ(Socks(SocksTo("db.example", peer_.port())), SocksReply(0));
  ExpectMutualTls();
  socket.Close();
  directory_.ForgetName("db.example");
  ExpectRefused(SocksTo("db.example", peer_.port()), ConnectTo("db.example", peer_.port()),
                CloseReason::kMeshDowngrade, 2, 403);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 0U);
}

TEST_F(OutboundProxyTest, TellsOfARefusedConnection) {
  Start();
  const uint16_t port = ClosedPort();
  ExpectRefused(SocksTo(port), ConnectTo("127.0.0.1", port), CloseReason::kConnectFailed, 5, 502);
}

TEST_F(OutboundProxyTest, TellsOfADeniedDestination) {
  proxy_.config.outbound_default = config::OutboundDefault::kDeny;
  Start();
  ExpectRefused(SocksTo(app_.port()), ConnectTo("127.0.0.1", app_.port()),
                CloseReason::kDestinationDenied, 2, 403);
  EXPECT_EQ(app_.accepted(), 0);
}

TEST_F(OutboundProxyTest, TellsOfAnotherIdentityBeforeOneByteHasFlown) {
  directory_.Set(Loopback(peer_.port()), Expecting("spiffe://example.org/other"));
  Start();
  ExpectRefused(SocksTo(peer_.port()), ConnectTo("127.0.0.1", peer_.port()),
                CloseReason::kIdentityMismatch, 1, 502);
}

TEST_F(OutboundProxyTest, TellsOfANameThatDoesNotExist) {
  Start();
  ExpectRefused(SocksTo("nowhere.example.", 80), ConnectTo("nowhere.example.", 80),
                CloseReason::kConnectFailed, 4, 502);
}

TEST_F(OutboundProxyTest, TellsOfALookupWithoutAnAnswer) {
  directory_.Hold(Loopback(app_.port()));
  proxy_.config.lookup_timeout = milliseconds(100);
  Start();
  ExpectRefused(SocksTo(app_.port()), ConnectTo("127.0.0.1", app_.port()),
                CloseReason::kLookupTimeout, 6, 504);
}

TEST_F(OutboundProxyTest, NeverDialsItself) {
  dns_.Set("me.example", {"127.0.0.1"}, 60);
  Start();
  ExpectRefused(SocksTo(proxy_.Port()), ConnectTo("127.0.0.1", proxy_.Port()),
                CloseReason::kSelfLoop, 2, 403);
  EXPECT_EQ(Socks(SocksTo("me.example", proxy_.Port())), SocksReply(2));
}

TEST_F(OutboundProxyTest, TellsThatItHasNoCertificate) {
  directory_.Set(Loopback(peer_.port()), Expecting(kDb));
  proxy_.config.handshake_timeout = milliseconds(100);
  proxy_.Start();
  ExpectRefused(SocksTo(peer_.port()), ConnectTo("127.0.0.1", peer_.port()),
                CloseReason::kNoIdentity, 1, 503);
}

TEST_F(OutboundProxyTest, RefusesWhatIsNoRequest) {
  Start();
  EXPECT_EQ(Socks("\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50"s), SocksReply(7));
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_THAT(Http("GET http://db/ HTTP/1.1\r\nHost: db\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kEnd));
  socket = proxy_.Connect();
  socket.Send("\x16\x03\x01");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kBadProxyRequest, 3)) << proxy_.Reasons();
}

TEST_F(OutboundProxyTest, RefusesARequestThatEndsTooEarly) {
  Start();
  socket = proxy_.Connect();
  socket.Send(kHello);
  EXPECT_EQ(socket.ReadExactly(2), kTakesNone);
  socket.ShutdownWrite();
  EXPECT_NE(Name(socket.DrainToEnd()), Name(ReadEnd::kTimeout));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kBadProxyRequest)) << proxy_.Reasons();
}

TEST_F(OutboundProxyTest, WaitsForARequestOnlySoLong) {
  proxy_.config.handshake_timeout = milliseconds(100);
  Start();
  Socket silent = proxy_.Connect();
  EXPECT_EQ(Name(silent.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_THAT(Http("CONNECT db:1 HTTP/1.1\r\n"), StartsWith("HTTP/1.1 408 "));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kProxyRequestTimeout, 2)) << proxy_.Reasons();
}

TEST_F(OutboundProxyTest, AClientThatGoesAwayDuringTheLookupEndsIt) {
  directory_.Hold(Loopback(app_.port()));
  Start();
  socket = proxy_.Connect();
  socket.Send(kHello + SocksTo(app_.port()));
  EXPECT_EQ(socket.ReadExactly(2), kTakesNone);
  socket.Reset();
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kReset)) << proxy_.Reasons();
}

}  // namespace
}  // namespace postern::testing
