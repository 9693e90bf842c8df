// SPDX-License-Identifier: Apache-2.0
#include "common/x509/peer_pins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestCa;

class PeerPinsTest : public ::testing::Test {
 protected:
  PeerPinsTest() {
    const testing::Minted leaf = issuing_.Mint("spiffe://example.org/db");
    const TrustBundleSet bundles = root_.BundleSet();
    ChainVerdict verdict = VerifyPeerChain(leaf.leaf(), leaf.Untrusted().get(), bundles,
                                           PeerRole::kServer, absl::Now());
    EXPECT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
    key_ = Sha256OfKey(leaf.leaf());
    leaf_ = Sha256OfCertificate(leaf.leaf());
    peer_.emplace(*std::move(verdict.peer));
  }

  TestCa root_{"example.org"};
  TestCa issuing_ = root_.Intermediate();
  base::Sha256Digest root_pin_ = Sha256OfCertificate(root_.certificate());
  base::Sha256Digest issuing_pin_ = Sha256OfCertificate(issuing_.certificate());
  base::Sha256Digest key_{};
  base::Sha256Digest leaf_{};
  base::Sha256Digest other_{1, 2, 3};
  std::optional<VerifiedPeer> peer_;
};

TEST_F(PeerPinsTest, TheVerifierTellsTheLeafsKey) {
  EXPECT_EQ(peer_->key_sha256, key_);
}

TEST_F(PeerPinsTest, AnyCaOfThePathWillDoAndTheLeafIsNone) {
  EXPECT_FALSE((PeerPins{{root_pin_}, {}}).Mismatch(*peer_).has_value());
  EXPECT_FALSE((PeerPins{{other_, issuing_pin_}, {}}).Mismatch(*peer_).has_value());
  EXPECT_TRUE((PeerPins{{leaf_}, {}}).Mismatch(*peer_).has_value());
  EXPECT_FALSE(PeerPins().Mismatch(*peer_).has_value());
}

TEST_F(PeerPinsTest, KeysAndCasMustBothFit) {
  EXPECT_FALSE((PeerPins{{root_pin_}, {other_, key_}}).Mismatch(*peer_).has_value());
  EXPECT_TRUE((PeerPins{{root_pin_}, {other_}}).Mismatch(*peer_).has_value());
  EXPECT_TRUE((PeerPins{{other_}, {key_}}).Mismatch(*peer_).has_value());
}

TEST_F(PeerPinsTest, AMismatchNamesWhatWasShownAndWhatIsPinned) {
  EXPECT_THAT(*(PeerPins{{}, {other_}}).Mismatch(*peer_),
              AllOf(HasSubstr(PinText(key_)), HasSubstr(PinText(other_))));
  EXPECT_THAT(*(PeerPins{{other_}, {}}).Mismatch(*peer_),
              AllOf(HasSubstr(PinText(issuing_pin_)), HasSubstr(PinText(root_pin_)),
                    HasSubstr(PinText(other_))));
  const PeerPins many{std::vector<base::Sha256Digest>(10, other_), {}};
  EXPECT_THAT(*many.Mismatch(*peer_), HasSubstr("and 6 more"));
}

TEST_F(PeerPinsTest, PinsThatAskForTheSameHaveOneText) {
  const PeerPins one{{other_, root_pin_}, {key_}};
  const PeerPins same{{root_pin_, other_, other_}, {key_}};
  EXPECT_EQ(one.ToString(), same.ToString());
  EXPECT_NE(one.ToString(), (PeerPins{{other_, root_pin_}, {}}).ToString());
  EXPECT_NE((PeerPins{{other_}, {}}).ToString(), (PeerPins{{}, {other_}}).ToString());
  EXPECT_EQ(PeerPins().ToString(), "");
}

TEST(PinTest, ReadsWhatItWritesAndNothingElse) {
  base::Sha256Digest digest{};
  digest.fill(0xAB);
  const std::string text = PinText(digest);
  EXPECT_EQ(*ParsePin(text), digest);
  const std::string upper = "sha256:" + std::string(64, 'A');
  EXPECT_TRUE(ParsePin(upper).ok());
  const std::string not_hex = text.substr(0, text.size() - 1) + "g";
  for (const std::string& bad : {std::string(), text.substr(7), text.substr(0, 70), text + "0",
                                 "sha1:" + text.substr(7), not_hex}) {
    EXPECT_EQ(ParsePin(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace postern::x509
