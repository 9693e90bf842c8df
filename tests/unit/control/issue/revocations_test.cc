// SPDX-License-Identifier: Apache-2.0
#include "control/issue/revocations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/key.h"
#include "control/issue/issuer.h"
#include "control/issue/registry.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/unit/control/issue/csr_maker.h"

namespace postern::issue {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using x509::RevokedBy;

constexpr char kWeb[] = "spiffe://example.org/web";

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}

// Does something once, when it is asked for the time: after the entry was found and before the
// certificate is logged.
class InterferingClock final : public base::Clock {
 public:
  InterferingClock(const base::Clock& real, std::function<void()> then)
      : real_(real), then_(std::move(then)) {}
  absl::Time Now() const override {
    if (then_) {
      std::exchange(then_, nullptr)();
    }
    return real_.Now();
  }
  absl::Duration SinceBoot() const override { return real_.SinceBoot(); }
  absl::Duration Awake() const override { return real_.Awake(); }

 private:
  const base::Clock& real_;
  mutable std::function<void()> then_;
};

// Finds whoever comes to be a member with that key.
class MemberAttestor final : public attest::Attestor {
 public:
  explicit MemberAttestor(std::string selector) : selector_(std::move(selector)) {}
  absl::StatusOr<attest::Attestation> Attest(const attest::Evidence& /*evidence*/) override {
    return attest::Attestation{.selectors = {selector_}, .entry_id = {}};
  }

 private:
  const std::string selector_;
};

class RevocationsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
    attestors_ = std::make_unique<attest::AttestorSet>(*store_, clock_);
    ca_ = *ca::CaSigner::Open({.state_dir = dir_.path(), .trust_domain = ExampleOrg()},
                              store_->cas(), clock_);
    revocations_ = *Revocations::Create(*ca_, *store_, clock_);
    issuer_ = *Issuer::Create({}, *ca_, *store_, *attestors_, clock_);
    issuer_->SetRevocations(revocations_.get());
    registry_ = std::make_unique<Registry>(ExampleOrg(), TtlPolicy{}, *store_, clock_);
  }

  absl::StatusOr<Revocations::Made> Revoke(RevokedBy by, std::string_view subject,
                                           std::string reason = "stolen") {
    return revocations_->Revoke(
        {.by = by, .subject = std::string(subject), .reason = std::move(reason)});
  }
  std::string Csr() { return *x509::CreateCsr(key_.get(), std::nullopt); }
  absl::StatusOr<IssueResult> ByToken() {
    const auto token = registry_->CreateToken(
        store::Entry{.spiffe_id = *x509::SpiffeId::Parse(kWeb)}, absl::ZeroDuration());
    return Issue(attest::JoinTokenEvidence{token->token});
  }
  absl::StatusOr<IssueResult> Issue(attest::Evidence evidence) {
    return issuer_->Issue({base::AsBytes(csr_), std::move(evidence), "test"});
  }
  x509::VerifiedPeer PeerOf(const IssueResult& issued) {
    std::vector<x509::X509Ptr> chain;
    for (const std::string& der : issued.chain_der) {
      chain.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
    }
    const x509::X509StackPtr untrusted = x509::ShareX509Stack(std::span(chain).subspan(1));
    auto verdict = x509::VerifyPeerChain(chain[0].get(), untrusted.get(), *ca_->bundles(),
                                         x509::PeerRole::kClient, clock_.Now());
    EXPECT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
    return *std::move(verdict.peer);
  }
  absl::StatusOr<IssueResult> Renew(const IssueResult& former) {
    return Issue(attest::ExistingCertificateEvidence{PeerOf(former)});
  }

  postern::testing::TempDir dir_;
  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<attest::AttestorSet> attestors_;
  std::unique_ptr<ca::CaSigner> ca_;
  std::unique_ptr<Revocations> revocations_;
  std::unique_ptr<Issuer> issuer_;
  std::unique_ptr<Registry> registry_;
  x509::PkeyPtr key_ = *x509::GenerateP256Key();
  std::string csr_ = Csr();
};

TEST_F(RevocationsTest, ARevokedIdentityGetsNothingUntilItIsLifted) {
  const auto issued = ByToken();
  ASSERT_TRUE(issued.ok()) << issued.status();
  ASSERT_TRUE(Renew(*issued).ok());
  const auto made = Revoke(RevokedBy::kSpiffeId, kWeb);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->certificates, 2U);
  EXPECT_EQ(made->revocation.forget_at, absl::InfiniteFuture());
  for (const auto& refused : {Renew(*issued), ByToken()}) {
    EXPECT_EQ(ReasonOf(refused.status()), RefusalReason::kRevoked);
    EXPECT_TRUE(absl::IsPermissionDenied(refused.status()));
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("stolen"));
  }
  ASSERT_TRUE(revocations_->Lift(made->revocation.sequence).ok());
  EXPECT_TRUE(Renew(*issued).ok());
}

TEST_F(RevocationsTest, ARevokedCertificateIsNotRenewedButItsSuccessorIs) {
  const auto first = ByToken();
  const auto second = Renew(*first);
  ASSERT_TRUE(second.ok()) << second.status();
  const auto made = Revoke(RevokedBy::kSerial, first->serial);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->certificates, 1U);
  EXPECT_EQ(made->revocation.forget_at, first->not_after + kRememberRevoked);
  EXPECT_EQ(ReasonOf(Renew(*first).status()), RefusalReason::kRevoked);
  EXPECT_TRUE(Renew(*second).ok());
}

TEST_F(RevocationsTest, ARevokedKeyIsNeverCertifiedAgain) {
  const auto issued = ByToken();
  ASSERT_TRUE(Revoke(RevokedBy::kKey, base::ToHex(PeerOf(*issued).key_sha256)).ok());
  EXPECT_EQ(ReasonOf(ByToken().status()), RefusalReason::kRevoked);
  key_ = *x509::GenerateP256Key();
  csr_ = Csr();
  EXPECT_TRUE(ByToken().ok()) << "another key of the same identity";
}

TEST_F(RevocationsTest, TheCaThatSignsNowCannotBeRevoked) {
  const auto slot = ca_->current();
  for (const X509* ca : {slot->root.get(), slot->chain.front().get()}) {
    const auto refused = Revoke(RevokedBy::kIssuer, base::ToHex(x509::Sha256OfCertificate(ca)));
    EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("Rotate first"));
  }
  EXPECT_TRUE(Revoke(RevokedBy::kIssuer, std::string(64, 'a')).ok());
}

TEST_F(RevocationsTest, WhatNobodyCanMeanIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Revoke(RevokedBy::kSpiffeId, "web").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Revoke(RevokedBy::kSpiffeId, kWeb, "").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Revoke(RevokedBy::kSpiffeId, kWeb, std::string(kMaxReason + 1, 'x')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Revoke(RevokedBy::kSpiffeId, "spiffe://example.org/postern/identity").status()));
  EXPECT_THAT(revocations_->list()->revocations, IsEmpty());
}

TEST_F(RevocationsTest, AnUnknownSerialIsRememberedAsLongAsAnythingCouldHaveIt) {
  const auto made = Revoke(RevokedBy::kSerial, "abcdef");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->certificates, 0U);
  EXPECT_EQ(made->revocation.forget_at,
            x509::NotAfter(ca_->current()->root.get()) + kRememberRevoked);
}

TEST_F(RevocationsTest, CleaningUpForgetsAndSaysSo) {
  const auto issued = ByToken();
  ASSERT_TRUE(Revoke(RevokedBy::kSerial, issued->serial).ok());
  EXPECT_FALSE(*revocations_->CleanUp());
  clock_.Advance(absl::Hours(1) + kRememberRevoked);
  EXPECT_TRUE(*revocations_->CleanUp());
  EXPECT_THAT(revocations_->list()->revocations, IsEmpty());
  EXPECT_TRUE(revocations_->current()->empty());
}

TEST_F(RevocationsTest, ADeletedEntryIsSeenAfterReload) {
  const auto issued = ByToken();
  ASSERT_TRUE(registry_->DeleteEntry(issued->entry_id).ok());
  ASSERT_TRUE(revocations_->Reload().ok());
  EXPECT_THAT(revocations_->list()->revocations, SizeIs(1));
  EXPECT_TRUE(revocations_->current()->WhyRevoked(PeerOf(*issued)).has_value());
}

TEST_F(RevocationsTest, ACertificateWhoseEntryGoesMeanwhileIsNotHandedOut) {
  const auto token = registry_->CreateToken(store::Entry{.spiffe_id = *x509::SpiffeId::Parse(kWeb)},
                                            absl::ZeroDuration());
  ASSERT_TRUE(token.ok()) << token.status();
  const InterferingClock clock(
      clock_, [this, id = token->entry.id] { EXPECT_TRUE(registry_->DeleteEntry(id).ok()); });
  const auto issuer = *Issuer::Create({}, *ca_, *store_, *attestors_, clock);
  const auto refused =
      issuer->Issue({base::AsBytes(csr_), attest::JoinTokenEvidence{token->token}, "test"});
  EXPECT_EQ(ReasonOf(refused.status()), RefusalReason::kNoEntry) << refused.status();
  EXPECT_EQ(*store_->certificates().CountIssued(), 1U) << "it was made, and nobody has it";
}

TEST_F(RevocationsTest, ACertificateWhoseMembersKeyIsRevokedMeanwhileIsNotHandedOut) {
  const std::string key(64, 'e');
  MemberAttestor attestor("key:sha256:" + key);
  ASSERT_TRUE(registry_
                  ->CreateEntry({.spiffe_id = *x509::SpiffeId::Parse(kWeb),
                                 .selectors = {"key:sha256:" + key}})
                  .ok());
  // Into the store alone: what the issuer keeps in memory comes a moment later.
  const InterferingClock clock(clock_, [this, key] {
    EXPECT_TRUE(store_->revocations()
                    .Revoke({.by = RevokedBy::kKey, .subject = key, .reason = "stolen"})
                    .ok());
  });
  const auto issuer = *Issuer::Create({}, *ca_, *store_, attestor, clock);
  issuer->SetRevocations(revocations_.get());
  const auto refused =
      issuer->Issue({base::AsBytes(csr_), attest::JoinTokenEvidence{"any"}, "test"});
  EXPECT_EQ(ReasonOf(refused.status()), RefusalReason::kRevoked) << refused.status();
  EXPECT_EQ(*store_->certificates().CountIssued(), 1U) << "it was made, and nobody has it";
}

// A thief who renews as fast as he can would make a list, once the entry is deleted, that nobody
// can be sent any more: of this victim's certificates and of all that are revoked later.
TEST_F(RevocationsTest, WhoRenewsWithoutEndIsStoppedBeforeTheListGrowsBeyondItsMessage) {
  issuer_->LimitEntries();
  auto newest = ByToken();
  ASSERT_TRUE(newest.ok()) << newest.status();
  const std::string entry = newest->entry_id;
  const x509::VerifiedPeer stolen = PeerOf(*newest);
  int given = 1;
  while (given < 10'000 && newest.ok()) {
    newest = Issue(attest::ExistingCertificateEvidence{stolen});
    given += newest.ok() ? 1 : 0;
  }
  EXPECT_EQ(given, static_cast<int>(EntryBudget::kMost));
  EXPECT_EQ(ReasonOf(newest.status()), RefusalReason::kRateLimited);
  EXPECT_TRUE(absl::IsResourceExhausted(newest.status()));
  EXPECT_TRUE(ByToken().ok()) << "another entry";
  ASSERT_TRUE(registry_->DeleteEntry(entry).ok());
  ASSERT_TRUE(revocations_->Reload().ok());
  EXPECT_THAT(revocations_->list()->revocations, SizeIs(given));
}

TEST_F(RevocationsTest, AMembersKeyStaysRevokedForAsLongAsItsEntryNamesIt) {
  const std::string key(64, 'e');
  ASSERT_TRUE(registry_
                  ->CreateEntry({.spiffe_id = *x509::SpiffeId::Parse(kWeb),
                                 .selectors = {"key:sha256:" + key}})
                  .ok());
  const auto made = Revoke(RevokedBy::kKey, key);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->revocation.forget_at, absl::InfiniteFuture());
  const std::string stranger(64, 'f');
  ASSERT_TRUE(Revoke(RevokedBy::kKey, stranger).ok());
  EXPECT_TRUE(
      absl::IsFailedPrecondition(registry_
                                     ->CreateEntry({.spiffe_id = *x509::SpiffeId::Parse(kWeb),
                                                    .selectors = {"key:sha256:" + stranger}})
                                     .status()));
}

}  // namespace
}  // namespace postern::issue
