// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "control/attest/attestor.h"
#include "control/attest/refusal.h"
#include "control/attest/selector.h"
#include "control/store/store.h"
#include "tests/fakes/fake_clock.h"

namespace postern::attest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}

TEST(RefusalTest, EachReasonHasItsOwnTokenAndSurvivesInAStatus) {
  std::set<std::string_view> tokens;
  for (RefusalReason reason : kAllRefusalReasons) {
    EXPECT_TRUE(tokens.insert(Token(reason)).second) << Token(reason);
    const absl::Status status = Refuse(reason, "why");
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_EQ(status.message(), "why");
  }
  EXPECT_EQ(ReasonOf(absl::NotFoundError("x")), RefusalReason::kInternal);
}

TEST(SelectorTest, KeepsCanonicalTexts) {
  for (const char* text : {"join-token:abc", "unix:uid:0", "unix:uid:1000", "unix:gid:4294967294",
                           "unix:path:/usr/bin/x y"}) {
    const auto parsed = ParseSelector(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, text);
  }
  EXPECT_EQ(*ParseSelector("unix:uid:007"), "unix:uid:7") << "two spellings of one fact";
  EXPECT_EQ(*ParseSelector("key:sha256:" + std::string(64, 'A')),
            "key:sha256:" + std::string(64, 'a'));
}

TEST(SelectorTest, RefusesWhatCouldNeverMatch) {
  const std::string with_nul("unix:path:/a\0b", 14);
  for (const std::string& text : {std::string(),
                                  std::string("unix"),
                                  std::string("unix:uid:"),
                                  std::string("unix:uid:x"),
                                  std::string("unix:uid:-1"),
                                  std::string("unix:uid: 1"),
                                  std::string("unix:uid:4294967295"),
                                  std::string("unix:uid:99999999999"),
                                  std::string("unix:path:bin"),
                                  std::string("unix:path:/"),
                                  std::string("unix:path:/a\nunix:uid:0"),
                                  std::string("key:"),
                                  std::string("key:sha256:"),
                                  "key:sha256:" + std::string(63, 'a'),
                                  "key:sha256:" + std::string(66, 'a'),
                                  "key:sha256:" + std::string(64, 'g'),
                                  "key:sha512:" + std::string(64, 'a'),
                                  std::string("join-token:"),
                                  std::string("UNIX:uid:1"),
                                  std::string("k8s:ns:default"),
                                  "unix:path:/" + std::string(5000, 'a'),
                                  with_nul}) {
    EXPECT_FALSE(ParseSelector(text).ok()) << text;
  }
}

TEST(TokenTest, MintsDifferentTokensAndNeverTheirHash) {
  std::set<std::string> tokens;
  for (int i = 0; i < 100; ++i) {
    const auto minted = MintToken();
    ASSERT_TRUE(minted.ok());
    EXPECT_EQ(minted->token.size(), 64U);
    EXPECT_EQ(minted->sha256, HashToken(minted->token));
    EXPECT_NE(base::ToHex(minted->sha256), minted->token);
    EXPECT_TRUE(tokens.insert(minted->token).second);
  }
}

class AttestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
    ASSERT_TRUE(store.ok());
    store_ = *std::move(store);
    attestors_ = std::make_unique<AttestorSet>(*store_, clock_);
  }
  // A token for `path`, with its entry.
  std::pair<std::string, store::Entry> Token(std::string_view path) {
    const auto minted = MintToken();
    auto entry = store_->tokens().CreateToken(minted->sha256, store::Entry{.spiffe_id = Id(path)},
                                              clock_.Now() + absl::Minutes(10));
    return {minted->token, *std::move(entry)};
  }
  // A certificate of the log, and the peer that shows it.
  x509::VerifiedPeer Issue(const std::string& entry_id) {
    store::IssuedCertificate certificate{.serial = "AB12",
                                         .spiffe_id = Id("/web"),
                                         .entry_id = entry_id,
                                         .not_after = clock_.Now() + absl::Hours(1),
                                         .issued_at = clock_.Now()};
    certificate.leaf_sha256.fill(3);
    EXPECT_TRUE(store_->certificates().Append(certificate).ok());
    return x509::VerifiedPeer{.id = certificate.spiffe_id,
                              .not_before = clock_.Now(),
                              .not_after = certificate.not_after,
                              .serial = certificate.serial,
                              .leaf_sha256 = certificate.leaf_sha256,
                              .chain_sha256 = {}};
  }
  RefusalReason Refusal(const Evidence& evidence) {
    const auto attested = attestors_->Attest(evidence);
    EXPECT_FALSE(attested.ok());
    return attested.ok() ? RefusalReason::kInternal : ReasonOf(attested.status());
  }

  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<AttestorSet> attestors_;
};

TEST_F(AttestTest, ATokenGivesItsEntrysSelectorOnce) {
  const auto [token, entry] = Token("/web");
  const auto attested = attestors_->Attest(JoinTokenEvidence{token});
  ASSERT_TRUE(attested.ok()) << attested.status();
  EXPECT_EQ(attested->selectors, entry.selectors);
  EXPECT_EQ(attested->entry_id, "");
  EXPECT_EQ(Refusal(JoinTokenEvidence{token}), RefusalReason::kBadToken);
}

TEST_F(AttestTest, RefusesAnExpiredTokenByThatName) {
  const std::string token = Token("/web").first;
  clock_.Advance(absl::Minutes(10));
  EXPECT_EQ(Refusal(JoinTokenEvidence{token}), RefusalReason::kExpiredToken);
}

TEST_F(AttestTest, RefusesWhatIsNoToken) {
  for (const std::string& token : {std::string(), std::string("x"), std::string(64, 'g'),
                                   std::string(64, 'A'), std::string(63, 'a'), std::string(65, 'a'),
                                   std::string(100000, 'a'), std::string(64, '\0')}) {
    EXPECT_EQ(Refusal(JoinTokenEvidence{token}), RefusalReason::kBadToken);
  }
  EXPECT_EQ(Refusal(JoinTokenEvidence{std::string(64, 'a')}), RefusalReason::kBadToken);
}

TEST_F(AttestTest, NeverRepeatsATokenInItsAnswer) {
  const std::string token(64, 'a');
  const auto attested = attestors_->Attest(JoinTokenEvidence{token});
  EXPECT_THAT(attested.status().ToString(), Not(HasSubstr(token)));
}

TEST_F(AttestTest, OfFiftyParallelUsesOfOneTokenExactlyOneIsAttested) {
  const std::string token = Token("/web").first;
  std::atomic<int> attested{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([this, &token, &attested] {
      attested += attestors_->Attest(JoinTokenEvidence{token}).ok() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(attested, 1);
}

TEST_F(AttestTest, ACertificateOfOursNamesTheEntryThatItWasIssuedUnder) {
  const auto attested = attestors_->Attest(ExistingCertificateEvidence{Issue("entry")});
  ASSERT_TRUE(attested.ok()) << attested.status();
  EXPECT_EQ(attested->entry_id, "entry");
  EXPECT_TRUE(attested->selectors.empty());
}

TEST_F(AttestTest, RefusesACertificateThatIsNotInTheLog) {
  x509::VerifiedPeer peer = Issue("entry");
  x509::VerifiedPeer other_hash = peer;
  other_hash.leaf_sha256.fill(4);
  x509::VerifiedPeer other_serial = peer;
  other_serial.serial = "CD34";
  x509::VerifiedPeer other_id = peer;
  other_id.id = Id("/db");
  for (const auto& forged : {other_hash, other_serial, other_id}) {
    EXPECT_EQ(Refusal(ExistingCertificateEvidence{forged}), RefusalReason::kUnknownCertificate);
  }
}

TEST_F(AttestTest, RenewsWithinOneLifetimeAfterTheEndAndNoLonger) {
  const x509::VerifiedPeer peer = Issue("entry");
  clock_.Advance(absl::Hours(2) - absl::Seconds(1));
  EXPECT_TRUE(attestors_->Attest(ExistingCertificateEvidence{peer}).ok());
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Refusal(ExistingCertificateEvidence{peer}), RefusalReason::kLongExpired);
  const absl::Status said = attestors_->Attest(ExistingCertificateEvidence{peer}).status();
  EXPECT_THAT(said.ToString(), HasSubstr("expired 1h ago, and the grace for renewing it is 1h"));
  EXPECT_TRUE(absl::IsUnauthenticated(said));
}

TEST_F(AttestTest, TheOperatorSetsTheGrace) {
  const x509::VerifiedPeer peer = Issue("entry");
  AttestorSet none(*store_, clock_, {.grace = absl::ZeroDuration()});
  AttestorSet days(*store_, clock_, {.grace = absl::Hours(48)});
  EXPECT_TRUE(none.Attest(ExistingCertificateEvidence{peer}).ok()) << "it has not expired";
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(ReasonOf(none.Attest(ExistingCertificateEvidence{peer}).status()),
            RefusalReason::kLongExpired);
  clock_.Advance(absl::Hours(47));
  EXPECT_TRUE(days.Attest(ExistingCertificateEvidence{peer}).ok());
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(ReasonOf(days.Attest(ExistingCertificateEvidence{peer}).status()),
            RefusalReason::kLongExpired);
}

TEST_F(AttestTest, WhatTheLogHasForgottenHasLongExpired) {
  const x509::VerifiedPeer peer = Issue("entry");
  clock_.Advance(absl::Hours(24 * 8));
  ASSERT_EQ(store_->certificates().PruneExpired(clock_.Now() - absl::Hours(24 * 7)).value(), 1U);
  EXPECT_EQ(Refusal(ExistingCertificateEvidence{peer}), RefusalReason::kLongExpired);
}

TEST_F(AttestTest, DoesNotRenewTheIssuersOwnCertificateForOthers) {
  EXPECT_EQ(Refusal(ExistingCertificateEvidence{Issue("")}), RefusalReason::kUnknownCertificate);
}

TEST_F(AttestTest, RefusesUnixEvidenceWithoutAUnixSocket) {
  EXPECT_EQ(Refusal(UnixPeerEvidence{}), RefusalReason::kUnattested);
}

TEST_F(AttestTest, NamesTheKindOfEvidence) {
  EXPECT_EQ(KindOf(JoinTokenEvidence{}), "join_token");
  EXPECT_EQ(KindOf(UnixPeerEvidence{}), "unix_peer");
  EXPECT_EQ(KindOf(ExistingCertificateEvidence{Issue("e")}), "existing_certificate");
}

}  // namespace
}  // namespace postern::attest
