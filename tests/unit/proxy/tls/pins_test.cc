// SPDX-License-Identifier: Apache-2.0
// What a client pins beyond its bundle, in full handshakes and in resumed ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "tests/unit/proxy/tls/resumption_fixture.h"

namespace postern::tls {
namespace {

using base::CloseReason;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Pins = std::shared_ptr<const x509::PeerPins>;

constexpr int kBadCertificate = 42;

Pins PinCa(const X509* ca) {
  return std::make_shared<const x509::PeerPins>(
      x509::PeerPins{{x509::Sha256OfCertificate(ca)}, {}});
}
Pins PinKey(const X509* leaf) {
  return std::make_shared<const x509::PeerPins>(x509::PeerPins{{}, {x509::Sha256OfKey(leaf)}});
}

class PinsTest : public ResumptionTest {
 protected:
  End ClientWith(const Pins& pins) {
    return {TlsEngine::CreateClient(client_, scratch_, Only(kServerId), kDestination, pins).value(),
            &scratch_};
  }
  bool Resumes(const Pins& pins) {
    return Connect(ClientWith(pins), Server()).client.engine->facts().resumed;
  }
  base::Failure Refusal(const Pins& pins) {
    EnginePair pair{ClientWith(pins), Server()};
    pair.Shake();
    EXPECT_EQ(pair.client.last, EngineOutcome::kFailed);
    EXPECT_EQ(pair.server.last, EngineOutcome::kFailed);
    EXPECT_EQ(pair.server.engine->failure().alert_received, kBadCertificate);
    return pair.client.engine->failure();
  }
};

TEST_F(PinsTest, AServerWithAPinnedKeyOrCaIsLetPass) {
  EXPECT_FALSE(Resumes(PinKey(server_svid_->leaf())));
  EXPECT_FALSE(Resumes(PinCa(ca_.certificate())));
}

TEST_F(PinsTest, AnotherKeyOrCaIsRefusedInsideTheHandshakeAndTheDetailHasTheHashes) {
  const testing::TestCa other("example.org");
  const base::Failure ca = Refusal(PinCa(other.certificate()));
  EXPECT_EQ(ca.reason, CloseReason::kPinMismatch);
  EXPECT_EQ(ca.peer_id, kServerId);
  EXPECT_THAT(std::string(base::Message(ca.detail)),
              AllOf(HasSubstr(x509::PinText(x509::Sha256OfCertificate(other.certificate()))),
                    HasSubstr(x509::PinText(x509::Sha256OfCertificate(ca_.certificate())))));
  const base::Failure key = Refusal(PinKey(client_svid_->leaf()));
  EXPECT_EQ(key.reason, CloseReason::kPinMismatch);
  EXPECT_THAT(std::string(base::Message(key.detail)),
              HasSubstr(x509::PinText(x509::Sha256OfKey(server_svid_->leaf()))));
}

// A chain that does not verify is refused as such: pins are no way around the bundle.
TEST_F(PinsTest, APinDoesNotReplaceTheBundle) {
  const testing::TestCa other("example.org");
  server_svid_ = Share(other.Issue(kServerId));
  Renew();
  EnginePair pair{ClientWith(PinKey(server_svid_->leaf())), Server()};
  pair.Shake();
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kPeerUntrusted);
}

TEST_F(PinsTest, ARememberedChainIsNoWayAroundThePins) {
  EXPECT_FALSE(Resumes(nullptr));
  sessions_ = std::make_shared<SessionCache>();
  const testing::TestCa other("example.org");
  // The same context remembers the chain as verified.
  EXPECT_EQ(Refusal(PinCa(other.certificate())).reason, CloseReason::kPinMismatch);
}

TEST_F(PinsTest, ASessionThatWasMadeUnderOtherPinsIsNotResumed) {
  const Pins key = PinKey(server_svid_->leaf());
  const Pins ca = PinCa(ca_.certificate());
  EXPECT_FALSE(Resumes(nullptr));
  EXPECT_TRUE(Resumes(nullptr));
  EXPECT_FALSE(Resumes(key)) << "made without pins";
  EXPECT_TRUE(Resumes(key));
  EXPECT_FALSE(Resumes(ca));
  EXPECT_TRUE(Resumes(ca));
  EXPECT_TRUE(Resumes(PinKey(server_svid_->leaf()))) << "the same pins, written anew";
  EXPECT_EQ(Refusal(PinKey(client_svid_->leaf())).reason, CloseReason::kPinMismatch);
}

}  // namespace
}  // namespace postern::tls
