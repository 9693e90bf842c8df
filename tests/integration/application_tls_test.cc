// SPDX-License-Identifier: Apache-2.0
// The application's own TLS: passed on untouched or wrapped in mTLS, as each port says, and in both
// cases what its ClientHello asks for stands in the record. And what is never passed on: plaintext
// to where mTLS is required.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/integration/inbound_fixture.h"
#include "tests/integration/outbound_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using config::ApplicationTls;
using std::chrono::milliseconds;
using std::chrono::seconds;
using telemetry::PlaintextReason;
using telemetry::Security;

class ApplicationTlsTest : public OutboundInterceptionTest {
 protected:
  ApplicationTlsTest()
      : own_tls_([this](Socket socket) {
          RawTls tls(std::move(socket), {.certificate = &db_, .server = true});
          tls.Send("own: " + tls.Read(100));
        }),
        mesh_([this](Socket socket) {
          RawTls tls(std::move(socket), {.certificate = &db_, .server = true});
          const std::string got = tls.Read(4096);
          tls.Send(got.size() > 3 && got[0] == 0x16 ? "wrapped hello" : "mTLS: " + got);
        }) {
    proxy_.config.sniff_timeout = seconds(10);  // a busy machine makes nobody silent
  }

  // The mesh's end of `destination` stands somewhere else, as behind a proxy.
  void PutIntoMesh(const net::SocketAddress& destination) {
    config::MeshDestination known = Expecting(kDb);
    known.endpoints = {{Loopback(mesh_.port()).ip(), "", mesh_.port()}};
    destination_ = destination;
    directory_.Set(destination, known);
  }

  Server own_tls_;
  Server mesh_;
};

TEST_F(ApplicationTlsTest, IsWrappedInMutualTlsUnlessThePortSaysOtherwise) {
  PutIntoMesh(Loopback(own_tls_.port()));
  Start();
  {
    Socket socket = Connect();
    socket.Send(ClientHelloBytes("shop.example", "h2"));
    EXPECT_EQ(socket.ReadExactly(13), "wrapped hello");
  }
  EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 1U);
  EXPECT_EQ(own_tls_.accepted(), 0);
  ASSERT_TRUE(proxy_.AwaitIdle());
  const std::string log = proxy_.AccessLog();
  EXPECT_NE(log.find("\"application_sni\":\"shop.example\""), std::string::npos) << log;
  EXPECT_NE(log.find("\"application_alpn\":\"h2\""), std::string::npos) << log;
  EXPECT_NE(log.find("\"security\":\"mutual_tls\""), std::string::npos) << log;
}

TEST_F(ApplicationTlsTest, IsPassedOnUntouchedWhereThePortSaysSo) {
  PutIntoMesh(Loopback(own_tls_.port()));
  proxy_.config.application_tls[own_tls_.port()] = ApplicationTls::kPass;
  Start();
  {
    RawTls peer(Connect(), {.alpn = "h2"});
    ASSERT_TRUE(peer.ok());
    peer.Send("mine");
    EXPECT_EQ(peer.ReadExactly(9), "own: mine");
  }
  EXPECT_EQ(mesh_.accepted(), 0);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kApplicationTls), 1U);
  EXPECT_EQ(proxy_.Secured(Security::kApplicationTls), 1U);
  ASSERT_TRUE(proxy_.AwaitIdle());
  const std::string log = proxy_.AccessLog();
  EXPECT_NE(log.find("\"application_alpn\":\"h2\""), std::string::npos) << log;
}

// Nobody has the address of a service; its workloads have theirs.
class ServiceTlsTest : public ApplicationTlsTest {
 protected:
  void Serve(const std::vector<uint16_t>& places) {
    config::MeshDestination service = Expecting(kDb);
    service.endpoints_are = config::EndpointsAre::kWorkloads;
    for (const uint16_t place : places) {
      service.endpoints.push_back({Loopback(place).ip(), "", place});
    }
    destination_ = net::SocketAddress(base::IpAddress::Parse("198.18.7.7").value(), kPort);
    directory_.Set(destination_, service);
    proxy_.config.application_tls[kPort] = ApplicationTls::kPass;
  }
  std::string Ask() {
    RawTls peer(Connect(), {.alpn = "h2"});
    if (!peer.ok()) {
      return "";
    }
    peer.Send("mine");
    return peer.ReadExactly(9);
  }
  static constexpr uint16_t kPort = 5432;
};

TEST_F(ServiceTlsTest, IsPassedOnToAPlaceOfTheService) {
  Serve({own_tls_.port()});
  Start();
  EXPECT_EQ(Ask(), "own: mine") << proxy_.Reasons();
  EXPECT_EQ(proxy_.Secured(Security::kApplicationTls), 1U);
}

TEST_F(ServiceTlsTest, GoesOnToAnotherPlaceWhereNobodyListens) {
  uint16_t gone = 0;
  {
    const Server ended(&Echo);
    gone = ended.port();
  }
  Serve({own_tls_.port(), gone});
  Start();
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(Ask(), "own: mine") << proxy_.Reasons();
  }
  const auto& retries = proxy_.worker().metrics().endpoint_retries;
  EXPECT_GE(retries[static_cast<size_t>(CloseReason::kConnectFailed)].value(), 1U)
      << "chance has never picked it in twenty connections";
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kApplicationTls), 20U);
}

TEST_F(ServiceTlsTest, IsNotPassedOnWhereAPlaceRequiresMutualTls) {
  Serve({own_tls_.port(), mesh_.port()});
  ASSERT_TRUE(proxy_.config.require_mtls.Add("127.0.0.0/8").ok());
  Start();
  EXPECT_EQ(Ask(), "");
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kMtlsRequired)) << proxy_.Reasons();
  EXPECT_EQ(own_tls_.accepted() + mesh_.accepted(), 0);
}

TEST_F(ServiceTlsTest, WhatIsNoTlsIsWrappedAsEver) {
  Serve({mesh_.port()});
  Start();
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadExactly(11), "mTLS: plain");
}

TEST_F(ApplicationTlsTest, IsPassedOnAlsoWhenItCameBeforeTheIssuersAnswer) {
  PutIntoMesh(Loopback(own_tls_.port()));
  directory_.Hold(destination_);
  proxy_.config.application_tls[own_tls_.port()] = ApplicationTls::kPass;
  Start();
  Socket socket = Connect();
  ASSERT_TRUE(Await([&] { return directory_.IsAwaited(destination_); }));
  socket.Send(ClientHelloBytes("shop.example", "h2"));
  directory_.Release(destination_);
  EXPECT_TRUE(Await([&] { return own_tls_.accepted() == 1; }, seconds(5)));
  EXPECT_EQ(mesh_.accepted(), 0);
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kApplicationTls), 1U);
}

TEST_F(ApplicationTlsTest, PlaintextToSuchAPortIsStillWrapped) {
  PutIntoMesh(Loopback(own_tls_.port()));
  proxy_.config.application_tls[own_tls_.port()] = ApplicationTls::kPass;
  Start();
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadExactly(11), "mTLS: plain");
  EXPECT_EQ(own_tls_.accepted(), 0);
}

TEST_F(ApplicationTlsTest, SoIsASilentApplicationsConnection) {
  PutIntoMesh(Loopback(own_tls_.port()));
  proxy_.config.application_tls[own_tls_.port()] = ApplicationTls::kPass;
  proxy_.config.sniff_timeout = milliseconds(20);
  Start();
  Socket socket = Connect();
  EXPECT_TRUE(Await([&] { return proxy_.Secured(Security::kMutualTls) == 1; }));
  socket.Send("late");
  EXPECT_EQ(socket.ReadExactly(10), "mTLS: late");
}

TEST_F(ApplicationTlsTest, IsNotPassedOnWhereMutualTlsIsRequired) {
  PutIntoMesh(Loopback(own_tls_.port()));
  proxy_.config.application_tls[own_tls_.port()] = ApplicationTls::kPass;
  ASSERT_TRUE(proxy_.config.require_mtls.Add("127.0.0.0/8").ok());
  Start();
  const RawTls peer(Connect(), {.alpn = "h2"});
  EXPECT_FALSE(peer.ok());
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kMtlsRequired)) << proxy_.Reasons();
  EXPECT_EQ(own_tls_.accepted(), 0);
}

TEST_F(OutboundInterceptionTest, PlaintextIsRefusedWhereMutualTlsIsRequired) {
  ASSERT_TRUE(proxy_.config.require_mtls.Add("127.0.0.0/8").ok());
  Start();
  Socket socket = Connect();
  socket.Send("secret");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kMtlsRequired)) << proxy_.Reasons();
  EXPECT_EQ(app_.accepted(), 0);
}

TEST_F(OutboundInterceptionTest, ElsewherePlaintextGoesOn) {
  ASSERT_TRUE(proxy_.config.require_mtls.Add("198.18.0.0/15").ok());
  Start();
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadExactly(5), "plain");
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 1U);
}

TEST_F(InboundInterceptionTest, WhatApplicationTlsAsksForStandsInTheRecord) {
  const TestCa own;
  const Minted certificate = own.Mint("spiffe://example.org/application");
  Start(
      [&](Socket socket) {
        RawTls tls(std::move(socket), {.certificate = &certificate, .server = true});
        tls.Send(tls.Read(100));
      },
      config::PeerMode::kPermissive);
  {
    RawTls peer(Connect(), {.certificate = &certificate, .alpn = "h2"});
    ASSERT_TRUE(peer.ok());
    peer.Send("mine");
    EXPECT_EQ(peer.ReadExactly(4), "mine");
  }
  ASSERT_TRUE(proxy_.AwaitIdle());
  const std::string log = proxy_.AccessLog();
  EXPECT_NE(log.find("\"security\":\"application_tls\""), std::string::npos) << log;
  EXPECT_NE(log.find("\"application_alpn\":\"h2\""), std::string::npos) << log;
}

}  // namespace
}  // namespace postern::testing
