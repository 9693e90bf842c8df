// SPDX-License-Identifier: Apache-2.0
// The inbound interception port: mesh TLS, the application's own TLS and plaintext told apart by
// the first bytes, by the mode of the port. Where the connection was going is told by the test; the
// real redirect is tested in namespaces.
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "tests/integration/inbound_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using config::PeerMode;
using std::chrono::milliseconds;
using telemetry::PlaintextReason;
using telemetry::Security;

TEST_F(InboundInterceptionTest, StrictTakesMeshTlsWithAndWithoutTheMark) {
  Start(&Echo, PeerMode::kStrict);
  for (const std::string alpn : {"postern/1", ""}) {
    RawTls peer(Connect(), {.certificate = &web_, .alpn = alpn});
    ASSERT_TRUE(peer.ok());
    EXPECT_EQ(peer.alpn(), alpn);
    peer.Send("hello");
    EXPECT_EQ(peer.ReadExactly(5), "hello");
  }
  EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 2U);
}

TEST_F(InboundInterceptionTest, StrictRefusesPlaintext) {
  Start(&Echo, PeerMode::kStrict);
  Socket socket = Connect();
  socket.Send("hello");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPlaintextRefused)) << proxy_.Reasons();
  EXPECT_EQ(app_->accepted(), 0);
}

TEST_F(InboundInterceptionTest, PermissiveTerminatesMeshTls) {
  Start(&Echo, PeerMode::kPermissive);
  RawTls peer(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer.alpn(), "postern/1");
  peer.Send("hello");
  EXPECT_EQ(peer.ReadExactly(5), "hello");
  EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 1U);
}

TEST_F(InboundInterceptionTest, PermissivePassesTheApplicationsOwnTls) {
  const TestCa own;
  const Minted certificate = own.Mint("spiffe://example.org/application");
  Start(
      [&](Socket socket) {
        RawTls tls(std::move(socket), {.certificate = &certificate, .server = true});
        tls.Send("end to end: " + tls.Read(100));
      },
      PeerMode::kPermissive);
  RawTls peer(Connect(), {.certificate = &certificate, .alpn = "h2"});
  ASSERT_TRUE(peer.ok());
  peer.Send("mine");
  EXPECT_EQ(peer.ReadExactly(16), "end to end: mine");
  EXPECT_TRUE(Await([&] { return proxy_.Plaintext(PlaintextReason::kApplicationTls) == 1; }));
  EXPECT_EQ(proxy_.Secured(Security::kApplicationTls), 1U);
}

TEST_F(InboundInterceptionTest, PermissivePassesPlaintext) {
  Start(&Echo, PeerMode::kPermissive);
  Socket socket = Connect();
  socket.Send("GET /");
  EXPECT_EQ(socket.ReadExactly(5), "GET /");
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kPermissive), 1U);
  socket.ShutdownWrite();
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
}

TEST_F(InboundInterceptionTest, AClientHelloInSingleBytesIsStillTheMesh) {
  Start(&Echo, PeerMode::kPermissive);
  // A TCP proxy of the test that chops the hello up.
  Server chopper([&](Socket front) {
    Socket back = Connect();
    const std::string hello = front.Read(1U << 14U);
    for (const char byte : hello) {
      back.Send(std::string(1, byte));
    }
    std::thread up([&] {
      while (true) {
        const std::string bytes = front.Read(1U << 14U);
        if (bytes.empty() || !back.Send(bytes)) {
          break;
        }
      }
      back.ShutdownWrite();
    });
    while (true) {
      const std::string bytes = back.Read(1U << 14U);
      if (bytes.empty() || !front.Send(bytes)) {
        break;
      }
    }
    front.ShutdownWrite();
    up.join();
  });
  {
    RawTls peer(Socket::Connect("127.0.0.1", chopper.port()),
                {.certificate = &web_, .alpn = "postern/1"});
    ASSERT_TRUE(peer.ok());
    peer.Send("chopped");
    EXPECT_EQ(peer.ReadExactly(7), "chopped");
    EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 1U);
  }
}

TEST_F(InboundInterceptionTest, AServerThatSpeaksFirstIsHeardInPermissiveMode) {
  proxy_.config.sniff_timeout = milliseconds(50);
  Start(
      [](Socket socket) {
        socket.Send("220 ready\r\n");
        Echo(std::move(socket));
      },
      PeerMode::kPermissive);
  const auto began = std::chrono::steady_clock::now();
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(11), "220 ready\r\n");
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
  socket.Send("EHLO me");
  EXPECT_EQ(socket.ReadExactly(7), "EHLO me");
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kServerFirst), 1U);
}

TEST_F(InboundInterceptionTest, AKnownMemberOfTheMeshIsWaitedForInstead) {
  directory_.AddMember(base::IpAddress::Parse("127.0.0.1").value());
  proxy_.config.sniff_timeout = milliseconds(20);
  proxy_.config.handshake_timeout = milliseconds(300);
  Start([](Socket socket) { socket.Send("220 ready\r\n"); }, PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadToEnd(), "") << "not one byte of plaintext";
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kSniffTimeout)) << proxy_.Reasons();
  EXPECT_EQ(app_->accepted(), 0);
}

TEST_F(InboundInterceptionTest, AMeshHelloThatIsLateButBeforeTheServerIsStillTakenIn) {
  proxy_.config.sniff_timeout = milliseconds(10);
  Start(&Echo, PeerMode::kPermissive);
  Socket socket = Connect();
  ASSERT_TRUE(Await([&] { return app_->accepted() == 1; })) << "dialled for the silent client";
  RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  peer.Send("late");
  EXPECT_EQ(peer.ReadExactly(4), "late");
  EXPECT_EQ(app_->accepted(), 1) << "over the connection that stands already";
  EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 1U);
}

TEST_F(InboundInterceptionTest, AMeshHelloAfterTheServerHasSpokenIsReset) {
  proxy_.config.sniff_timeout = milliseconds(10);
  Start(
      [](Socket socket) {
        socket.Send("220");
        socket.DrainToEnd();
      },
      PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(3), "220");
  const RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  EXPECT_FALSE(peer.ok());
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kLateClientHello)) << proxy_.Reasons();
}

TEST_F(InboundInterceptionTest, ASilentClientThatSpeaksPlaintextAfterTheWaitIsPassed) {
  proxy_.config.sniff_timeout = milliseconds(10);
  Start(&Echo, PeerMode::kPermissive);
  Socket socket = Connect();
  ASSERT_TRUE(Await([&] { return app_->accepted() == 1; }));
  socket.Send("slow typist");
  EXPECT_EQ(socket.ReadExactly(11), "slow typist");
}

TEST_F(InboundInterceptionTest, DisabledPassesWhateverComes) {
  Start([](Socket socket) { socket.Send("got " + socket.Read(100)); }, PeerMode::kDisabled);
  Socket socket = Connect();
  socket.Send("raw");
  EXPECT_EQ(socket.ReadExactly(7), "got raw");
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kDisabled), 1U);
}

TEST_F(InboundInterceptionTest, ThePolicysModeOutranksTheConfigsPortModeAndThatTheGeneralOne) {
  Start(&Echo, PeerMode::kStrict);
  proxy_.PublishPolicy(
      "apiVersion: postern.dev/v1\nkind: PeerMode\nmetadata: {name: m}\n"
      "spec: {ports: {\"" +
          std::to_string(app_->port()) + "\": permissive}}\n",
      kDb);
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadExactly(5), "plain");
}

TEST_F(InboundInterceptionTest, APortModeOutranksTheGeneralOne) {
  Serve(&Echo);
  proxy_.config.port_modes[app_->port()] = PeerMode::kStrict;
  Run(PeerMode::kPermissive);
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadToEnd(), "");
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPlaintextRefused)) << proxy_.Reasons();
}

TEST_F(InboundInterceptionTest, PolicyBindsPlaintextClientsToo) {
  Start(&Echo, PeerMode::kPermissive);
  proxy_.PublishPolicy(
      "apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\n"
      "metadata: {name: web}\nspec:\n  action: ALLOW\n  rules:\n"
      "    - from: [{spiffeIds: [\"spiffe://example.org/web\"]}]\n",
      kDb);
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyDenied)) << proxy_.Reasons();
  RawTls peer(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  peer.Send("hello");
  EXPECT_EQ(peer.ReadExactly(5), "hello");
}

TEST_F(InboundInterceptionTest, NeverDialsItself) {
  Start(&Echo, PeerMode::kPermissive);
  for (const std::string_view own : {"inbound", "outbound"}) {
    GoesTo(Loopback(proxy_.PortOf(own)));
    Socket socket = Connect();
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  }
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kSelfLoop, 2)) << proxy_.Reasons();
  EXPECT_EQ(proxy_.Opened(), 2U) << "not one connection more";
}

TEST_F(InboundInterceptionTest, RefusesAConnectionThatNobodyRedirected) {
  proxy_.config.intercept = config::InterceptMode::kRedirect;
  proxy_.config.inbound_port = 0;
  proxy_.config.outbound_port = 0;
  proxy_.Start();  // with the real original destination
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  ASSERT_TRUE(Await([&] { return proxy_.Closed() == 1; }));
  EXPECT_EQ(
      proxy_.Closed(CloseReason::kNoOriginalDestination) + proxy_.Closed(CloseReason::kSelfLoop),
      1U)
      << proxy_.Reasons();
}

}  // namespace
}  // namespace postern::testing
