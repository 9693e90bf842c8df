// SPDX-License-Identifier: Apache-2.0
// Servers that speak first on permissive ports: nobody waits long for their greeting, what was
// learned of a port spares the next client the wait, and a member of the mesh never gets plaintext.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/inbound_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using config::PeerMode;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using telemetry::PlaintextReason;
using telemetry::Security;

constexpr std::string_view kGreeting = "220 ready\r\n";
// A wait that a busy machine does not make by itself, and what is below it for certain.
constexpr milliseconds kLongWait{2000};
constexpr milliseconds kSpared{1500};
const base::IpAddress kHere = base::IpAddress::Parse("127.0.0.1").value();

void GreetAndEcho(Socket socket) {
  socket.Send(kGreeting);
  Echo(std::move(socket));
}

class ServerFirstTest : public InboundInterceptionTest {
 protected:
  ServerFirstTest() { proxy_.config.sniff_timeout = config::ProxyConfig().sniff_timeout; }
  // From the connect to the first byte of the greeting.
  milliseconds TimeToGreeting() {
    const auto began = steady_clock::now();
    Socket socket = Connect();
    EXPECT_EQ(socket.Read(1), "2");
    const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - began);
    EXPECT_EQ(socket.ReadExactly(kGreeting.size() - 1), kGreeting.substr(1));
    return took;
  }
  std::string MeshEcho(std::string_view text) {
    RawTls peer(Connect(), {.certificate = &web_, .alpn = "postern/1"});
    EXPECT_TRUE(peer.ok());
    EXPECT_EQ(peer.ReadExactly(kGreeting.size()), kGreeting);
    peer.Send(text);
    return peer.ReadExactly(text.size());
  }
};

// With the defaults that users have. What a loaded machine adds is the machine's: the least of a
// few tries is what the proxy makes a client wait.
TEST_F(ServerFirstTest, AGreetingIsThereWithinATenthOfASecondWithoutAnyDeclaration) {
  Start(&GreetAndEcho, PeerMode::kPermissive);
  milliseconds least = TimeToGreeting();
  uint64_t tries = 1;
  for (; tries < 10 && least >= milliseconds(100); ++tries) {
    Serve(&GreetAndEcho);  // at another port, of which nothing is known
    least = std::min(least, TimeToGreeting());
  }
  EXPECT_LT(least, milliseconds(100));
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kServerFirst), tries);
}

TEST_F(ServerFirstTest, TheNextClientOfThatPortDoesNotWaitAtAll) {
  proxy_.config.sniff_timeout = kLongWait;
  Start(&GreetAndEcho, PeerMode::kPermissive);
  EXPECT_GE(TimeToGreeting(), kSpared) << "the wait that shows whether it is spared";
  for (int i = 0; i < 3; ++i) {
    EXPECT_LT(TimeToGreeting(), kSpared);
  }
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kServerFirst), 4U);
}

TEST_F(ServerFirstTest, WhatWasLearnedIsSharedByTheWorkers) {
  proxy_.config.workers = 2;
  proxy_.config.sniff_timeout = kLongWait;
  Start(&GreetAndEcho, PeerMode::kPermissive);
  TimeToGreeting();
  for (int i = 0; i < 8; ++i) {  // whichever worker accepts it
    EXPECT_LT(TimeToGreeting(), kSpared);
  }
}

TEST_F(ServerFirstTest, MeshAndPlaintextClientsMixOnOnePort) {
  proxy_.config.sniff_timeout = kLongWait;
  Start(&GreetAndEcho, PeerMode::kPermissive);
  // All of them have one address here: without a member before them, the first would have to be
  // quicker than the greeting.
  EXPECT_EQ(MeshEcho("first"), "first");
  TimeToGreeting();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(MeshEcho("mesh"), "mesh");
    EXPECT_LT(TimeToGreeting(), kSpared);
  }
  EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 11U);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kServerFirst), 11U);
  EXPECT_EQ(proxy_.Closed(CloseReason::kLateClientHello), 0U);
}

// However late its ClientHello comes, and although the port is known to greet.
TEST_F(ServerFirstTest, AKnownMemberIsNeverAnsweredInPlaintext) {
  Start(&GreetAndEcho, PeerMode::kPermissive);
  TimeToGreeting();
  directory_.AddMember(kHere);
  Socket socket = Connect();
  socket.SetTimeout(milliseconds(300));
  EXPECT_EQ(socket.Read(1), "");
  EXPECT_EQ(Name(socket.last_end()), Name(ReadEnd::kTimeout)) << "neither plaintext nor an end";
  socket.SetTimeout(std::chrono::seconds(20));
  RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer.ReadExactly(kGreeting.size()), kGreeting);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kServerFirst), 1U);
}

TEST_F(ServerFirstTest, NotEvenWhenItEndsItsSideWithoutAWord) {
  Start(&GreetAndEcho, PeerMode::kPermissive);
  TimeToGreeting();
  directory_.AddMember(kHere);
  for (const std::string& said : {std::string(), std::string("\x16\x03\x01\x02", 4)}) {
    Socket socket = Connect();
    socket.Send(said);
    socket.ShutdownWrite();
    EXPECT_EQ(socket.ReadToEnd(), "");
  }
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kHandshakeFailed)) << proxy_.Reasons();
  EXPECT_EQ(app_->accepted(), 1);
}

// The issuer is being asked about the address while the server greets already.
TEST_F(ServerFirstTest, AClientThatTurnsOutToBeAMemberIsWaitedFor) {
  std::atomic<bool> speak = false;
  Start(
      [&](Socket socket) {
        ASSERT_TRUE(Await([&] { return speak.load(); }));
        GreetAndEcho(std::move(socket));
      },
      PeerMode::kPermissive);
  proxy_.config.sniff_timeout = milliseconds(10);
  Socket socket = Connect();
  ASSERT_TRUE(Await([&] { return app_->accepted() == 1; })) << "dialled for the silent client";
  directory_.AddMember(kHere);
  speak = true;
  socket.SetTimeout(milliseconds(200));
  EXPECT_EQ(socket.Read(1), "");
  EXPECT_EQ(Name(socket.last_end()), Name(ReadEnd::kTimeout));
  socket.SetTimeout(std::chrono::seconds(20));
  RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer.ReadExactly(kGreeting.size()), kGreeting);
  EXPECT_EQ(app_->accepted(), 1);
}

TEST_F(ServerFirstTest, AnUnknownClientsHelloAfterTheGreetingIsResetAndCounted) {
  proxy_.config.sniff_timeout = kLongWait;
  Start(&GreetAndEcho, PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(kGreeting.size()), kGreeting);
  const RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  EXPECT_FALSE(peer.ok());
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kLateClientHello)) << proxy_.Reasons();
  EXPECT_EQ(MeshEcho("again"), "again") << "the next try is in time";
}

// What is learned of a port holds for all of its clients, and for good.
TEST_F(ServerFirstTest, AClientThatHasProvedNothingTeachesNothingOfThePort) {
  Start(&GreetAndEcho, PeerMode::kPermissive);
  const session::PortMemory& ports = *proxy_.shared.ports;
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(kGreeting.size()), kGreeting);
  EXPECT_TRUE(ports.WasGreeted(kHere));
  socket.Send(ClientHelloBytes("", "postern/1"));
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kLateClientHello)) << proxy_.Reasons();
  EXPECT_FALSE(ports.Knows(session::PortMemory::Fact::kMesh, app_->port()));
  EXPECT_FALSE(ports.WasGreeted(kHere)) << "the next one from there is waited for";
}

TEST_F(ServerFirstTest, AServerThatHangsUpOnASilentClientHasNotSpoken) {
  Start([](Socket socket) { socket.Close(); }, PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kEnd));
  EXPECT_EQ(app_->accepted(), 1);
  EXPECT_FALSE(proxy_.shared.ports->Knows(session::PortMemory::Fact::kServerFirst, app_->port()));
}

TEST_F(ServerFirstTest, ALateHelloInPiecesIsNoPlaintextEither) {
  Start(&GreetAndEcho, PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(kGreeting.size()), kGreeting);
  socket.Send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kLateClientHello)) << proxy_.Reasons();
}

// Accepting waits where there are too many handshakes; who was accepted already cannot be made to.
TEST_F(ServerFirstTest, SilentClientsThatBeginAHandshakeAfterAllHaveTheLimitOfHandshakes) {
  constexpr size_t kClients = 12;
  constexpr size_t kPlaces = 4;
  proxy_.config.max_handshakes = kPlaces;
  proxy_.config.sniff_timeout = milliseconds(10);
  proxy_.config.handshake_timeout = milliseconds(1500);
  Start(&Echo, PeerMode::kPermissive);
  std::vector<Socket> clients;
  for (size_t i = 0; i < kClients; ++i) {
    clients.push_back(Connect());
  }
  ASSERT_TRUE(Await([&] { return app_->accepted() == kClients; })) << "each was let in silent";
  for (Socket& client : clients) {
    client.Send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  }
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kOverload, kClients - kPlaces)) << proxy_.Reasons();
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kHandshakeTimeout, kPlaces)) << proxy_.Reasons();
  EXPECT_TRUE(proxy_.AwaitIdle());
  RawTls peer(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  EXPECT_TRUE(peer.ok()) << "the places are free again";
}

// What they say may be anything else: that is no handshake, and nobody is counted for it.
TEST_F(ServerFirstTest, SilentClientsThatSpeakPlaintextAfterAllHaveNoSuchLimit) {
  proxy_.config.max_handshakes = 1;
  proxy_.config.sniff_timeout = milliseconds(10);
  Start(&Echo, PeerMode::kPermissive);
  Socket hello = Connect();
  std::vector<Socket> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(Connect());
  }
  ASSERT_TRUE(Await([&] { return app_->accepted() == 6; }));
  hello.Send(std::string("\x16\x03\x01\x02\x00\x01", 6));  // has the only place
  for (Socket& client : clients) {
    client.Send("plain");
    EXPECT_EQ(client.ReadExactly(5), "plain");
  }
}

// Policy asks for an identity: a silent client can only be a member, however slow it is.
TEST_F(ServerFirstTest, AClientThatMustHaveAnIdentityIsGivenTheTimeOfAHandshake) {
  proxy_.config.sniff_timeout = milliseconds(10);
  Start(&GreetAndEcho, PeerMode::kPermissive);
  proxy_.PublishPolicy(kAllowWeb, kDb);
  Socket socket = Connect();
  socket.SetTimeout(milliseconds(200));
  EXPECT_EQ(socket.Read(1), "");
  EXPECT_EQ(Name(socket.last_end()), Name(ReadEnd::kTimeout));
  socket.SetTimeout(std::chrono::seconds(20));
  RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer.ReadExactly(kGreeting.size()), kGreeting);
}

TEST_F(ServerFirstTest, AClientWithoutOneIsRefusedByPolicyThen) {
  proxy_.config.sniff_timeout = milliseconds(10);
  proxy_.config.handshake_timeout = milliseconds(100);
  Start(&GreetAndEcho, PeerMode::kPermissive);
  proxy_.PublishPolicy(kAllowWeb, kDb);
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadToEnd(), "");
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyDenied)) << proxy_.Reasons();
  EXPECT_EQ(app_->accepted(), 0);
}

TEST_F(ServerFirstTest, AnOpaquePortIsNeitherWaitedForNorLookedInto) {
  Serve(&GreetAndEcho);
  proxy_.config.port_modes[app_->port()] = PeerMode::kOpaque;
  proxy_.config.sniff_timeout = milliseconds(2000);
  directory_.AddMember(kHere);
  Run(PeerMode::kPermissive);
  EXPECT_LT(TimeToGreeting(), milliseconds(1000));
  // What looks like the mesh's is passed on like anything else.
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(kGreeting.size()), kGreeting);
  const std::string hello("\x16\x03\x01", 3);
  socket.Send(hello);
  EXPECT_EQ(socket.ReadExactly(hello.size()), hello);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kOpaque), 2U);
  proxy_.PublishPolicy(kAllowWeb, kDb);
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked)) << "policy binds it";
}

TEST_F(ServerFirstTest, ASkippedPortAsksNoPolicy) {
  Serve(&GreetAndEcho);
  proxy_.config.port_modes[app_->port()] = PeerMode::kSkip;
  Run(PeerMode::kStrict);
  proxy_.PublishPolicy(kAllowWeb, kDb);
  TimeToGreeting();
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kSkipped), 1U);
}

TEST_F(ServerFirstTest, TheTimeUntilItIsKnownWhoSpeaksIsMeasured) {
  proxy_.config.sniff_timeout = kLongWait;
  Start(&GreetAndEcho, PeerMode::kPermissive);
  MeshEcho("x");
  TimeToGreeting();
  uint64_t observed = 0;
  const telemetry::DurationHistogram& seconds = proxy_.worker().metrics().sniff_seconds;
  for (size_t i = 0; i <= telemetry::DurationHistogram::kBounds.size(); ++i) {
    observed += seconds.bucket(i);
  }
  EXPECT_EQ(observed, 2U);
}

}  // namespace
}  // namespace postern::testing
