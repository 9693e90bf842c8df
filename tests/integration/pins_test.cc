// SPDX-License-Identifier: Apache-2.0
// Pins of a tunnel and of a destination, between two proxies: beyond the bundle, also on what is
// open, also when sessions are resumed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/x509/certificate.h"
#include "common/x509/peer_pins.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using ::testing::HasSubstr;

class PinsTest : public ::testing::Test {
 protected:
  // The client's proxy, with these pins on its tunnel to the server's.
  void Start(x509::PeerPins pins) {
    pair_.Start();
    client_.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                      "127.0.0.1:" + std::to_string(pair_.server.Port()), {std::string(kDb)});
    client_.config.tunnels.back().pins = std::make_shared<const x509::PeerPins>(std::move(pins));
    client_.Start();
    client_.PublishIdentity(pair_.ca, kWeb);
  }
  void ExpectEcho() {
    Socket socket = client_.Connect();
    ASSERT_TRUE(socket.Send("hello"));
    EXPECT_EQ(socket.ReadExactly(5), "hello") << client_.Reasons();
  }
  void ExpectMismatch(const std::string& hash) {
    Socket socket = client_.Connect();
    socket.Send("secret");
    EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
    EXPECT_TRUE(client_.AwaitClosed(CloseReason::kPinMismatch)) << client_.Reasons();
    EXPECT_EQ(client_.Closed(), 1U) << client_.Reasons();
    EXPECT_THAT(client_.Failures(), HasSubstr("pin_mismatch"));
    EXPECT_THAT(client_.Failures(), HasSubstr(hash));
    EXPECT_EQ(pair_.app.accepted(), 0) << "nothing reaches the application";
    EXPECT_TRUE(pair_.server.AwaitClosed(CloseReason::kRejectedByPeer)) << pair_.server.Reasons();
  }
  ~PinsTest() override { client_.Stop(); }

  ProxyPair pair_{&Echo};
  TestProxy client_;
  TestCa other_;
};

TEST_F(PinsTest, AServerUnderAPinnedCaIsTalkedTo) {
  Start({{x509::Sha256OfCertificate(pair_.ca.certificate())}, {}});
  ExpectEcho();
  ExpectEcho();  // a resumed session, and the same pins
  EXPECT_EQ(client_.Resumed(), 1U);
}

TEST_F(PinsTest, AServerUnderAnotherCaOfItsBundleIsRefusedBeforeOneByte) {
  const base::Sha256Digest pin = x509::Sha256OfCertificate(other_.certificate());
  Start({{pin}, {}});
  ExpectMismatch(x509::PinText(pin));
}

TEST_F(PinsTest, AServerWithAnotherKeyIsRefusedBeforeOneByte) {
  const Minted stranger = other_.Mint(kDb);
  const base::Sha256Digest pin = x509::Sha256OfKey(stranger.leaf());
  Start({{}, {pin}});
  ExpectMismatch(x509::PinText(pin));
}

// The server moves below another root, which the client's bundle trusts: the pin does not.
TEST_F(PinsTest, AServerThatMovesToAnotherTrustedRootIsRefused) {
  Start({{x509::Sha256OfCertificate(pair_.ca.certificate())}, {}});
  ExpectEcho();
  std::vector<x509::X509Ptr> roots;
  roots.push_back(pair_.ca.Root());
  roots.push_back(other_.Root());
  const auto both = [&roots, this] {
    std::vector<x509::X509Ptr> shared;
    for (const x509::X509Ptr& root : roots) {
      shared.push_back(x509::ShareX509(root.get()));
    }
    std::vector<x509::TrustBundle> bundles;
    bundles.push_back(
        x509::TrustBundle::Create(pair_.ca.trust_domain(), std::move(shared)).value());
    return x509::TrustBundleSet(std::move(bundles));
  };
  client_.PublishBundles(both());
  pair_.server.PublishIdentity(other_.Issue(kDb), both());
  Socket socket = client_.Connect();
  socket.Send("secret");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(client_.AwaitClosed(CloseReason::kPinMismatch)) << client_.Reasons();
}

}  // namespace
}  // namespace postern::testing
