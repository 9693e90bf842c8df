// SPDX-License-Identifier: Apache-2.0
// The outbound interception port: what is of the mesh gets mutual TLS to the expected identity,
// what is not is passed or refused, and what is uncertain is never plaintext.
#include <gtest/gtest.h>

#include <string>

#include "tests/integration/outbound_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using std::chrono::milliseconds;
using telemetry::PlaintextReason;
using telemetry::Security;

TEST_F(OutboundInterceptionTest, PassesWhatIsNotOfTheMesh) {
  Start();
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadExactly(5), "plain");
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 1U);
  socket.ShutdownWrite();
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kOk));
}

TEST_F(OutboundInterceptionTest, PassesPlaintextEvenWithoutACertificate) {
  proxy_.Start();
  Socket socket = Connect();
  socket.Send("plain");
  EXPECT_EQ(socket.ReadExactly(5), "plain");
}

TEST_F(OutboundInterceptionTest, CountsTheApplicationsOwnTlsAsSuch) {
  Server tls_app([&](Socket socket) {
    RawTls tls(std::move(socket), {.certificate = &db_, .server = true});
    tls.Send(tls.Read(10));
  });
  destination_ = Loopback(tls_app.port());
  Start();
  {
    RawTls peer(Connect(), {});
    peer.Send("x");
    EXPECT_EQ(peer.ReadExactly(1), "x");
  }
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kApplicationTls), 1U);
  EXPECT_EQ(proxy_.Secured(Security::kApplicationTls), 1U);
}

TEST_F(OutboundInterceptionTest, CountsAConnectionOnWhichTheApplicationNeverSpoke) {
  Start();
  Socket socket = Connect();
  socket.ShutdownWrite();
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kOk)) << proxy_.Reasons();
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kNotInMesh), 1U);
}

TEST_F(OutboundInterceptionTest, DeniesWhatIsNotOfTheMeshWhenToldSo) {
  proxy_.config.outbound_default = config::OutboundDefault::kDeny;
  Start();
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kDestinationDenied)) << proxy_.Reasons();
  EXPECT_EQ(app_.accepted(), 0);
}

class MeshDestinationTest : public OutboundInterceptionTest {
 protected:
  MeshDestinationTest()
      : peer_([this](Socket socket) {
          RawTls tls(std::move(socket), {.certificate = &db_, .server = true});
          const std::string got = tls.Read(100);
          if (!got.empty()) {
            tls.Send("mTLS: " + got);
            tls.CloseNotify();
            tls.DrainToCleanEnd();
          }
        }) {
    destination_ = Loopback(peer_.port());
  }
  void ExpectMutualTls() {
    Socket socket = Connect();
    socket.Send("hello");
    EXPECT_EQ(socket.ReadExactly(11), "mTLS: hello");
    EXPECT_EQ(proxy_.Secured(Security::kMutualTls), 1U);
  }
  Server peer_;
};

TEST_F(MeshDestinationTest, GetsMutualTlsToTheExpectedIdentity) {
  directory_.Set(destination_, Expecting(kDb));
  Start();
  ExpectMutualTls();
}

TEST_F(MeshDestinationTest, IsHeldWhileItIsLookedUp) {
  directory_.Set(destination_, Expecting(kDb));
  directory_.AnswerLater();
  Start();
  ExpectMutualTls();
}

TEST_F(MeshDestinationTest, IsDialledWhereTheDirectorySays) {
  config::MeshDestination elsewhere = Expecting(kDb);
  elsewhere.endpoints = {{base::IpAddress::Parse("127.0.0.1").value(), "", peer_.port()}};
  destination_ = net::SocketAddress(base::IpAddress::Parse("198.18.7.7").value(), 80);
  directory_.Set(destination_, elsewhere);
  Start();
  ExpectMutualTls();
}

TEST_F(MeshDestinationTest, WithAnotherIdentityGetsNotOneByte) {
  directory_.Set(destination_, Expecting("spiffe://example.org/other"));
  Start();
  Socket socket = Connect();
  socket.Send("secret");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kIdentityMismatch)) << proxy_.Reasons();
}

TEST_F(MeshDestinationTest, ThatLeftTheMeshIsNotSpokenToInPlaintext) {
  directory_.Set(destination_, absl::FailedPreconditionError("was of the mesh once"));
  Start();
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kMeshDowngrade)) << proxy_.Reasons();
  EXPECT_EQ(peer_.accepted(), 0);
}

TEST_F(MeshDestinationTest, ThatNobodyAnswersForIsRefusedAtTheDeadline) {
  directory_.Hold(destination_);
  proxy_.config.lookup_timeout = milliseconds(100);
  Start();
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kLookupTimeout)) << proxy_.Reasons();
  EXPECT_EQ(peer_.accepted(), 0);
}

TEST_F(MeshDestinationTest, ThatNobodyCanBeAskedAboutIsRefused) {
  directory_.Set(destination_, absl::UnavailableError("no issuer"));
  Start();
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kLookupTimeout)) << proxy_.Reasons();
}

TEST_F(MeshDestinationTest, ThatRefusesTlsGetsNoApplicationByte) {
  std::string seen;
  std::mutex mutex;
  Server liar([&](Socket socket) {
    std::string got = socket.Read(1U << 14U);
    const std::lock_guard<std::mutex> lock(mutex);
    seen += got;
  });
  destination_ = Loopback(liar.port());
  directory_.Set(destination_, Expecting(kDb));
  Start();
  Socket socket = Connect();
  socket.Send("TOP-SECRET");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  ASSERT_TRUE(proxy_.AwaitIdle());
  liar.StopAccepting();
  const std::lock_guard<std::mutex> lock(mutex);
  EXPECT_EQ(seen.find("TOP-SECRET"), std::string::npos);
}

TEST_F(OutboundInterceptionTest, NeverDialsItself) {
  Start();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    destination_ = Loopback(proxy_.PortOf("outbound"));
  }
  Socket socket = Connect();
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kSelfLoop)) << proxy_.Reasons();
  EXPECT_EQ(proxy_.Opened(), 1U);
}

TEST_F(OutboundInterceptionTest, AClientThatGoesAwayDuringTheLookupEndsIt) {
  directory_.Hold(destination_);
  Start();
  Socket socket = Connect();
  ASSERT_TRUE(Await([&] { return proxy_.Opened() == 1; }));
  socket.Reset();
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kReset)) << proxy_.Reasons();
}

}  // namespace
}  // namespace postern::testing
