// SPDX-License-Identifier: Apache-2.0
// Every kind of peer that must not get in is refused with its own reason, and told so by an alert
// that arrives.
#include <gtest/gtest.h>

#include <string>

#include "proxy/telemetry/tls_alerts.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;

class InboundRefusalTest : public ::testing::Test {
 protected:
  InboundRefusalTest() : pair_(&Echo) { pair_.Start(); }

  // A client with this certificate must be refused, for this reason and with this alert.
  void ExpectRefused(const Minted* certificate, CloseReason reason, int alert) {
    RawTls peer(pair_.server.Connect(), {.certificate = certificate});
    peer.Send("let me in");
    EXPECT_EQ(peer.Read(100), "");
    EXPECT_EQ(peer.alert(), alert);
    ExpectClosed(reason);
  }
  void ExpectClosed(CloseReason reason) {
    EXPECT_TRUE(pair_.server.AwaitClosed(reason)) << pair_.server.Reasons();
    EXPECT_EQ(pair_.server.Closed(), 1U) << pair_.server.Reasons();
    EXPECT_NE(pair_.server.Failures().find(base::Token(reason)), std::string::npos);
    EXPECT_EQ(pair_.app.accepted(), 0) << "nothing reaches the application";
  }

  ProxyPair pair_;
};

TEST_F(InboundRefusalTest, AClientWithoutACertificate) {
  ExpectRefused(nullptr, CloseReason::kPeerNoCertificate, 116);
}

TEST_F(InboundRefusalTest, AClientOfAnotherCa) {
  const TestCa other;
  const Minted forged = other.Mint(kWeb);
  ExpectRefused(&forged, CloseReason::kPeerUntrusted, 48);
}

TEST_F(InboundRefusalTest, AClientOfAnUnknownTrustDomain) {
  const TestCa other("elsewhere.test");
  const Minted foreign = other.Mint("spiffe://elsewhere.test/web");
  RawTls peer(pair_.server.Connect(), {.certificate = &foreign});
  EXPECT_EQ(peer.Read(100), "");
  EXPECT_GE(peer.alert(), 0);
  ExpectClosed(CloseReason::kTrustDomainUnknown);
}

TEST_F(InboundRefusalTest, AnExpiredClient) {
  CertificateSpec spec = LeafSpec(kWeb);
  spec.not_before = absl::Now() - absl::Hours(2);
  spec.not_after = absl::Now() - absl::Minutes(5);
  const Minted expired = pair_.ca.Mint(spec);
  ExpectRefused(&expired, CloseReason::kPeerExpired, 45);
}

TEST_F(InboundRefusalTest, AClientFromTheFuture) {
  CertificateSpec spec = LeafSpec(kWeb);
  spec.not_before = absl::Now() + absl::Hours(1);
  spec.not_after = absl::Now() + absl::Hours(2);
  const Minted early = pair_.ca.Mint(spec);
  RawTls peer(pair_.server.Connect(), {.certificate = &early});
  EXPECT_EQ(peer.Read(100), "");
  ExpectClosed(CloseReason::kPeerNotYetValid);
}

TEST_F(InboundRefusalTest, AClientWithoutTheUsage) {
  CertificateSpec spec = LeafSpec(kWeb);
  spec.extended_key_usage = "serverAuth";
  const Minted wrong = pair_.ca.Mint(spec);
  RawTls peer(pair_.server.Connect(), {.certificate = &wrong});
  EXPECT_EQ(peer.Read(100), "");
  ExpectClosed(CloseReason::kPeerWrongUsage);
}

TEST_F(InboundRefusalTest, ACertificateThatIsNoSvid) {
  CertificateSpec spec = LeafSpec(kWeb);
  spec.uris.push_back("spiffe://example.org/second");
  const Minted two = pair_.ca.Mint(spec);
  RawTls peer(pair_.server.Connect(), {.certificate = &two});
  EXPECT_EQ(peer.Read(100), "");
  ExpectClosed(CloseReason::kPeerBadCertificate);
}

TEST_F(InboundRefusalTest, AnIdentityThatIsNoPeerOfTheTunnel) {
  const Minted stranger = pair_.ca.Mint("spiffe://example.org/stranger");
  ExpectRefused(&stranger, CloseReason::kPolicyDenied, 49);
  EXPECT_NE(pair_.server.Failures().find("spiffe://example.org/stranger"), std::string::npos);
}

TEST_F(InboundRefusalTest, ATls12Client) {
  const Minted web = pair_.ca.Mint(kWeb);
  RawTls peer(pair_.server.Connect(), {.certificate = &web, .max_version = TLS1_2_VERSION});
  EXPECT_FALSE(peer.ok());
  EXPECT_EQ(peer.alert(), 70);
  ExpectClosed(CloseReason::kTlsVersion);
}

TEST_F(InboundRefusalTest, APlaintextClient) {
  Socket socket = pair_.server.Connect();
  socket.Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(socket.ReadToEnd(), "");
  ExpectClosed(CloseReason::kPlaintextRefused);
}

TEST_F(InboundRefusalTest, AMalformedClientHello) {
  Socket socket = pair_.server.Connect();
  // A handshake record whose message is no ClientHello.
  socket.Send(std::string("\x16\x03\x01\x00\x08\x02\x00\x00\x04\x00\x00\x00\x00", 13));
  EXPECT_EQ(socket.ReadToEnd(), "");
  ExpectClosed(CloseReason::kInvalidClientHello);
}

TEST_F(InboundRefusalTest, AnEndlessClientHello) {
  Socket socket = pair_.server.Connect();
  std::string hello("\x16\x03\x01\x40\x00\x01\x01\x00\x00", 9);  // claims 64 KiB and more
  hello += std::string(0x4000 - 4, 'x');
  socket.Send(hello);
  for (int i = 0; i < 5; ++i) {
    socket.Send(std::string("\x16\x03\x01\x40\x00", 5) + std::string(0x4000, 'x'));
  }
  EXPECT_EQ(socket.ReadToEnd(), "");
  ExpectClosed(CloseReason::kClientHelloTooLarge);
}

TEST_F(InboundRefusalTest, AClientThatLeavesWithinItsHello) {
  Socket socket = pair_.server.Connect();
  socket.Send(std::string("\x16\x03\x01\x02\x00\x01\x00", 7));
  socket.ShutdownWrite();
  EXPECT_EQ(socket.ReadToEnd(), "");
  ExpectClosed(CloseReason::kHandshakeFailed);
}

TEST_F(InboundRefusalTest, APortCheckIsNoFailure) {
  pair_.server.Connect().Close();
  EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kOk)) << pair_.server.Reasons();
}

// --- outbound

class OutboundRefusalTest : public ::testing::Test {
 protected:
  // The client's proxy meets a server with this certificate, and must not talk to it.
  void ExpectRefuses(const Minted& certificate, CloseReason reason,
                     int max_version = TLS1_3_VERSION) {
    std::atomic<int> got_application_bytes = 0;
    Server peer([&](Socket socket) {
      RawTls tls(std::move(socket),
                 {.certificate = &certificate, .max_version = max_version, .server = true});
      if (!tls.Read(100).empty()) {
        ++got_application_bytes;
      }
    });
    TestProxy client;
    client.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                     "127.0.0.1:" + std::to_string(peer.port()), {std::string(kDb)});
    client.Start();
    client.PublishIdentity(ca_, kWeb);
    Socket socket = client.Connect();
    socket.Send("secret");
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
    EXPECT_TRUE(client.AwaitClosed(reason)) << client.Reasons();
    EXPECT_EQ(client.Closed(), 1U) << client.Reasons();
    client.Stop();
    peer.StopAccepting();
    EXPECT_EQ(got_application_bytes, 0);
  }

  TestCa ca_;
};

TEST_F(OutboundRefusalTest, AServerWithAnotherIdentity) {
  ExpectRefuses(ca_.Mint("spiffe://example.org/impostor"), CloseReason::kIdentityMismatch);
}

TEST_F(OutboundRefusalTest, AServerOfAnotherCa) {
  const TestCa other;
  ExpectRefuses(other.Mint(kDb), CloseReason::kPeerUntrusted);
}

TEST_F(OutboundRefusalTest, AnExpiredServer) {
  CertificateSpec spec = LeafSpec(kDb);
  spec.not_before = absl::Now() - absl::Hours(2);
  spec.not_after = absl::Now() - absl::Minutes(5);
  ExpectRefuses(ca_.Mint(spec), CloseReason::kPeerExpired);
}

TEST_F(OutboundRefusalTest, AServerThatSpeaksTls12Only) {
  ExpectRefuses(ca_.Mint(kDb), CloseReason::kTlsVersion, TLS1_2_VERSION);
}

TEST_F(OutboundRefusalTest, AServerThatSpeaksNoTls) {
  Server peer([](Socket socket) {
    socket.Read(1);
    socket.Send("HTTP/1.1 400 Bad Request\r\n\r\n");
    socket.DrainToEnd();
  });
  TestProxy client;
  client.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                   "127.0.0.1:" + std::to_string(peer.port()), {std::string(kDb)});
  client.Start();
  client.PublishIdentity(ca_, kWeb);
  Socket socket = client.Connect();
  socket.Send("secret");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(client.AwaitClosed(CloseReason::kHandshakeFailed)) << client.Reasons();
}

// TLS 1.3: the client's side of the handshake is over before the server has judged the client.
TEST_F(OutboundRefusalTest, AClientLearnsThatItWasRejectedAndByWhichAlert) {
  ProxyPair pair(&Echo);
  pair.Start();
  pair.client.PublishIdentity(pair.ca, "spiffe://example.org/stranger");
  Socket socket = pair.Connect();
  socket.Send("hello");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kRejectedByPeer)) << pair.client.Reasons();
  EXPECT_NE(pair.client.Failures().find("access_denied"), std::string::npos)
      << pair.client.Failures();
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kPolicyDenied)) << pair.server.Reasons();
}

}  // namespace
}  // namespace postern::testing
