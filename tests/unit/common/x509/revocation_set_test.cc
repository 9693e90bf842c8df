// SPDX-License-Identifier: Apache-2.0
#include "common/x509/revocation_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"
#include "tests/testing/test_crl.h"

namespace postern::x509 {
namespace {

using postern::testing::CrlSpec;
using postern::testing::MakeCrl;
using postern::testing::Minted;
using postern::testing::TestCa;
using ::testing::HasSubstr;
using ::testing::Optional;

constexpr char kWeb[] = "spiffe://example.org/web";

VerifiedPeer PeerOf(const Minted& minted, const TestCa& ca) {
  ChainVerdict verdict = VerifyPeerChain(minted.leaf(), minted.Untrusted().get(), ca.BundleSet(),
                                         PeerRole::kClient, absl::Now());
  EXPECT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
  return *std::move(verdict.peer);
}

Revocation Of(RevokedBy by, std::string_view subject) {
  return {.by = by,
          .subject = CanonicalSubject(by, subject).value(),
          .sequence = 7,
          .reason = "key stolen",
          .revoked_at = absl::FromUnixSeconds(1767225600)};
}

RevocationSet Only(RevokedBy by, std::string_view subject) {
  return RevocationSet({Of(by, subject)});
}

class RevocationSetTest : public ::testing::Test {
 protected:
  const TestCa root_;
  const TestCa issuing_ = root_.Intermediate();
  const Minted web_ = issuing_.Mint(kWeb);
  const Minted other_ = issuing_.Mint("spiffe://example.org/other");
  const VerifiedPeer peer_ = PeerOf(web_, root_);
  const VerifiedPeer bystander_ = PeerOf(other_, root_);
};

TEST_F(RevocationSetTest, AnEmptySetRefusesNobody) {
  const RevocationSet none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.WhyRevoked(peer_), std::nullopt);
  EXPECT_EQ(none.WhyUnknown(peer_, absl::Now()), std::nullopt);
}

TEST_F(RevocationSetTest, FindsAPeerByEachThingThatARevocationCanName) {
  const std::string key = base::ToHex(Sha256OfKey(web_.leaf()));
  for (const auto& [by, subject] :
       std::vector<std::pair<RevokedBy, std::string>>{{RevokedBy::kSpiffeId, kWeb},
                                                      {RevokedBy::kSerial, SerialHex(web_.leaf())},
                                                      {RevokedBy::kKey, key}}) {
    const RevocationSet set = Only(by, subject);
    EXPECT_THAT(set.WhyRevoked(peer_), Optional(HasSubstr("key stolen"))) << subject;
    EXPECT_THAT(set.WhyRevoked(peer_), Optional(HasSubstr("(revocation 7)"))) << subject;
    EXPECT_THAT(set.WhyRevoked(peer_), Optional(HasSubstr("2026-01-01T00:00:00Z"))) << subject;
    EXPECT_EQ(set.WhyRevoked(bystander_), std::nullopt) << subject;
  }
}

TEST_F(RevocationSetTest, ARevokedCaTakesEveryoneBelowItWithIt) {
  for (X509* ca : {issuing_.certificate(), root_.root()}) {
    const RevocationSet set = Only(RevokedBy::kIssuer, base::ToHex(Sha256OfCertificate(ca)));
    EXPECT_TRUE(set.WhyRevoked(peer_).has_value());
    EXPECT_TRUE(set.WhyRevoked(bystander_).has_value());
  }
  const TestCa stranger;
  const RevocationSet elsewhere =
      Only(RevokedBy::kIssuer, base::ToHex(Sha256OfCertificate(stranger.root())));
  EXPECT_EQ(elsewhere.WhyRevoked(peer_), std::nullopt);
}

TEST_F(RevocationSetTest, ALeafIsNotFoundByTheDigestOfACa) {
  const RevocationSet set = Only(RevokedBy::kIssuer, base::ToHex(Sha256OfCertificate(web_.leaf())));
  EXPECT_EQ(set.WhyRevoked(peer_), std::nullopt);
}

TEST_F(RevocationSetTest, SerialsAreFoundHoweverTheyAreWritten) {
  VerifiedPeer peer = peer_;
  peer.serial = "00a1b2";
  for (const char* written : {"a1b2", "00A1B2", "A1:B2", "0a1b2"}) {
    EXPECT_TRUE(Only(RevokedBy::kSerial, written).WhyRevoked(peer).has_value()) << written;
  }
  EXPECT_FALSE(Only(RevokedBy::kSerial, "a1b20").WhyRevoked(peer).has_value());
}

TEST_F(RevocationSetTest, RefusesSubjectsThatAreNone) {
  for (const auto& [by, subject] : std::vector<std::pair<RevokedBy, const char*>>{
           {RevokedBy::kSpiffeId, "web"},
           {RevokedBy::kSpiffeId, "spiffe://example.org"},
           {RevokedBy::kSerial, ""},
           {RevokedBy::kSerial, "xyz"},
           {RevokedBy::kKey, "abcd"},
           {RevokedBy::kIssuer, ""}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CanonicalSubject(by, subject).status())) << subject;
  }
}

TEST_F(RevocationSetTest, EveryKindHasATokenThatComesBack) {
  for (size_t i = 0; i < kRevokedByCount; ++i) {
    const auto by = static_cast<RevokedBy>(i);
    EXPECT_EQ(ParseRevokedBy(Token(by)), by);
  }
  EXPECT_EQ(ParseRevokedBy("nothing"), std::nullopt);
}

TEST_F(RevocationSetTest, AReasonCannotBreakOutOfItsSentence) {
  Revocation revocation = Of(RevokedBy::kSpiffeId, kWeb);
  revocation.reason = "line\nbreak \x1b[31m";
  const std::optional<std::string> why = RevocationSet({revocation}).WhyRevoked(peer_);
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->find('\n'), std::string::npos);
  EXPECT_EQ(why->find('\x1b'), std::string::npos);
}

TEST_F(RevocationSetTest, ACrlRefusesWhatItListsAndNothingElse) {
  const auto crl = VerifyCrl(MakeCrl(issuing_, {.serials = {SerialHex(web_.leaf())}}).get(),
                             "team.crl", issuing_.Intermediates())
                       .value();
  const RevocationSet set({}, {crl});
  EXPECT_THAT(set.WhyRevoked(peer_), Optional(HasSubstr("team.crl")));
  EXPECT_EQ(set.WhyRevoked(bystander_), std::nullopt);
}

TEST_F(RevocationSetTest, ACrlOfTheRootRefusesTheIntermediateAndAllBelow) {
  std::vector<X509Ptr> roots;
  roots.push_back(root_.Root());
  const auto crl = VerifyCrl(MakeCrl(root_, {.serials = {SerialHex(issuing_.certificate())}}).get(),
                             "root.crl", roots)
                       .value();
  const RevocationSet set({}, {crl});
  EXPECT_THAT(set.WhyRevoked(peer_), Optional(HasSubstr("certificate 1 above the leaf")));
  EXPECT_TRUE(set.WhyRevoked(bystander_).has_value());
}

TEST_F(RevocationSetTest, TheSameSerialOfAnotherCaIsNotRevoked) {
  const TestCa sibling = root_.Intermediate();
  const auto crl = VerifyCrl(MakeCrl(sibling, {.serials = {SerialHex(web_.leaf())}}).get(), "x",
                             sibling.Intermediates())
                       .value();
  EXPECT_EQ(RevocationSet({}, {crl}).WhyRevoked(peer_), std::nullopt);
}

TEST_F(RevocationSetTest, PastItsNextUpdateACrlLeavesItsCasPeersUnknown) {
  const absl::Time now = absl::Now();
  const auto crl = VerifyCrl(MakeCrl(issuing_, {.next_update = now + absl::Minutes(5)}).get(),
                             "team.crl", issuing_.Intermediates())
                       .value();
  const RevocationSet set({}, {crl});
  EXPECT_EQ(set.WhyUnknown(peer_, now), std::nullopt);
  EXPECT_THAT(set.WhyUnknown(peer_, now + absl::Minutes(6)), Optional(HasSubstr("team.crl")));
  EXPECT_EQ(set.WhyRevoked(peer_), std::nullopt) << "what is open goes on";
  const TestCa stranger;
  EXPECT_EQ(set.WhyUnknown(PeerOf(stranger.Mint(kWeb), stranger), now + absl::Minutes(6)),
            std::nullopt);
}

// A handshake with much revoked costs as much as one with little: a handful of hash look-ups.
TEST_F(RevocationSetTest, TenThousandRevocationsCostMicroseconds) {
  std::vector<Revocation> many;
  for (int i = 0; i < 10'000; ++i) {
    many.push_back(Of(RevokedBy::kSerial, base::StrCat(1'000'000 + i)));
  }
  const RevocationSet set(std::move(many));
  constexpr int kLookups = 10'000;
  const auto began = std::chrono::steady_clock::now();
  int found = 0;
  for (int i = 0; i < kLookups; ++i) {
    found += set.WhyRevoked(peer_).has_value() ? 1 : 0;
  }
  const auto took = std::chrono::steady_clock::now() - began;
  const double each =
      std::chrono::duration<double, std::micro>(took).count() / static_cast<double>(kLookups);
  std::printf("a look-up among 10,000 revocations: %.2f us\n", each);
  RecordProperty("microseconds", std::to_string(each));
  EXPECT_EQ(found, 0);
  EXPECT_LT(each, 50.0) << "also under a sanitizer";
}

}  // namespace
}  // namespace postern::x509
