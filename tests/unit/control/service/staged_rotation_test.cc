// SPDX-License-Identifier: Apache-2.0
// When a step of a rotation may be made, and the rotation that goes by itself.
#include "control/service/staged_rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/x509/certificate.h"
#include "control/service/federation.h"
#include "control/service/issuer_metrics.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::service {
namespace {

using ca::CaKind;
using ca::RotationPhase;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kTick = absl::Seconds(1);

// What the process tells the mesh after a step.
mesh::BundleSet BundlesOf(const ca::CaSigner& ca) {
  return {ca.bundle_version(), {RootsOf(*ca.bundles()->Find(ca.trust_domain().name()))}};
}

class StagedRotationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
    web_ = store_->entries()
               .CreateEntry({.spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                             .selectors = {"unix:uid:1"}})
               ->id;
    Restart();
  }
  void TearDown() override { proxies_.clear(); }

  void Restart(bool automatic = true, bool plugged = false) {
    proxies_.clear();
    rotation_.reset();
    signer_ = *ca::CaSigner::Open(
        {.state_dir = dir_.path(), .trust_domain = *x509::TrustDomain::Parse("example.org")},
        store_->cas(), clock_);
    steps_ = std::make_unique<ca::CaRotation>(*signer_, store_->cas(), clock_);
    mesh_ = *mesh::MeshState::Create(*store_, clock_);
    mesh_->SetBundles(BundlesOf(*signer_));
    rotation_ = std::make_unique<StagedRotation>(StagedRotation::Parts{
        .rotation = plugged ? nullptr : steps_.get(),
        .signer = signer_.get(),
        .certificates = &store_->certificates(),
        .mesh = mesh_.get(),
        .clock = &clock_,
        .on_change =
            [this] {
              if (publishes_) {
                mesh_->SetBundles(BundlesOf(*signer_));
              }
            },
        .automatic = automatic,
        .renewal_grace = [this](absl::Duration life) { return grace_ * life; },
        .plugged = plugged});
  }

  // A proxy's stream, which acknowledges what it is sent at first.
  mesh::Session& Connect(const std::string& serial = "") {
    mesh::Session& session = ConnectSilently(serial);
    Acknowledge(session);
    return session;
  }
  mesh::Session& ConnectSilently(const std::string& serial = "") {
    proxies_.push_back(*mesh_->Connect({.id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                                        .entry_id = web_,
                                        .source = *base::IpAddress::Parse("198.18.0.7"),
                                        .serial = serial},
                                       [] {}));
    return *proxies_.back();
  }
  static void Acknowledge(mesh::Session& session, std::string_view error = "") {
    if (const mesh::Updates updates = session.Take(); updates.bundles != nullptr) {
      session.Acknowledge(mesh::Kind::kBundles, updates.bundles->version, error);
    }
  }
  // A certificate that the present CA signed.
  void Issue(const std::string& serial, absl::Duration ttl, const std::string& replaces = "") {
    ASSERT_TRUE(store_->certificates()
                    .Append({.serial = serial,
                             .spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                             .entry_id = web_,
                             .ca_id = signer_->current()->ca_id,
                             .not_after = clock_.Now() + ttl,
                             .issued_at = clock_.Now(),
                             .replaces = replaces})
                    .ok());
  }
  absl::Status Step(RotationStep step, CaKind kind = CaKind::kRoot, bool force = false) {
    return rotation_->Step(kind, step, force);
  }
  RotationPhase Phase() { return rotation_->Report()->state.phase; }
  std::string Signs() { return signer_->current()->ca_id; }
  // Time goes by, and the issuer's process ticks.
  void Pass(absl::Duration time) {
    clock_.Advance(time);
    rotation_->Tick();
  }
  void KeepAway(std::string_view beginning) {
    for (const auto& file : std::filesystem::directory_iterator(dir_.Path("keys"))) {
      if (file.path().filename().string().starts_with(beginning)) {
        std::filesystem::remove(file.path());
      }
    }
  }

  testing::TempDir dir_;
  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::string web_;
  double grace_ = 0;       // of a lifetime
  bool publishes_ = true;  // false: the store refuses the bundle's version
  std::unique_ptr<ca::CaSigner> signer_;
  std::unique_ptr<ca::CaRotation> steps_;
  std::shared_ptr<mesh::MeshState> mesh_;
  std::unique_ptr<StagedRotation> rotation_;
  std::vector<std::unique_ptr<mesh::Session>> proxies_;
};

TEST_F(StagedRotationTest, ActivationWaitsForEveryConnectedProxy) {
  mesh::Session& first = Connect();
  mesh::Session& second = Connect();
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  const std::string old = Signs();
  Acknowledge(first);
  Acknowledge(second, "the disk is full");
  const absl::Status refused = Step(RotationStep::kActivate);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("spiffe://example.org/web 198.18.0.7"));
  EXPECT_THAT(rotation_->Report()->not_followed,
              ElementsAre("spiffe://example.org/web 198.18.0.7: the disk is full"));
  EXPECT_EQ(Signs(), old);
  second.Acknowledge(mesh::Kind::kBundles, mesh_->bundles()->version, "");
  EXPECT_THAT(rotation_->Report()->not_followed, IsEmpty());
  ASSERT_TRUE(Step(RotationStep::kActivate).ok());
  EXPECT_NE(Signs(), old);
}

TEST_F(StagedRotationTest, AProxyThatGoesIsNotWaitedForAndOneThatComesIs) {
  Connect();
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  EXPECT_FALSE(Step(RotationStep::kActivate).ok());
  proxies_.clear();
  Connect();
  mesh_->SetBundles(BundlesOf(*signer_));
  EXPECT_TRUE(Step(RotationStep::kActivate).ok());
}

TEST_F(StagedRotationTest, ActivationWaitsForABundleThatCouldNotBePublished) {
  mesh::Session& proxy = Connect();
  publishes_ = false;
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  Acknowledge(proxy);
  const std::string old = Signs();
  const absl::Status refused = Step(RotationStep::kActivate);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_EQ(Signs(), old);
  publishes_ = true;
  mesh_->SetBundles(BundlesOf(*signer_));
  EXPECT_FALSE(Step(RotationStep::kActivate).ok()) << "published, and not acknowledged";
  Acknowledge(proxy);
  EXPECT_TRUE(Step(RotationStep::kActivate).ok());
}

TEST_F(StagedRotationTest, ForceActivatesWithoutThoseThatHaveNotFollowed) {
  Connect();
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  EXPECT_TRUE(Step(RotationStep::kActivate, CaKind::kRoot, /*force=*/true).ok());
  EXPECT_EQ(Phase(), RotationPhase::kActive);
}

TEST_F(StagedRotationTest, RetirementWaitsForTheLastOldCertificate) {
  Issue("01", absl::Minutes(30));
  Issue("02", absl::Hours(1));
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  ASSERT_TRUE(Step(RotationStep::kActivate).ok());
  Issue("03", absl::Hours(5));
  EXPECT_EQ(rotation_->Report()->old_certificates_until, clock_.Now() + absl::Hours(1));
  clock_.Advance(absl::Minutes(59));
  const absl::Status refused = Step(RotationStep::kRetire);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("2026-01-01T01:00:00Z"));
  Restart();
  EXPECT_EQ(Phase(), RotationPhase::kActive);
  clock_.Advance(absl::Minutes(1));
  EXPECT_EQ(rotation_->Report()->old_certificates_until, absl::UnixEpoch());
  ASSERT_TRUE(Step(RotationStep::kRetire).ok());
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  EXPECT_THAT(mesh_->bundles()->bundles[0].root_der, SizeIs(1));
  EXPECT_THAT(mesh_->bundles()->bundles[0].retired_root_sha256, SizeIs(1));
}

// An answer may be lost on its way: only what the owner has shown proves that it is there.
TEST_F(StagedRotationTest, ARenewedCertificateIsDoneWithOnceItsSuccessorWasShown) {
  Issue("01", absl::Hours(1));
  Issue("02", absl::Hours(1));
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  ASSERT_TRUE(Step(RotationStep::kActivate).ok());
  Issue("03", absl::Hours(1), "01");
  Issue("04", absl::Hours(1), "02");
  EXPECT_NE(rotation_->Report()->old_certificates_until, absl::UnixEpoch());
  Connect("03");  // in a stream
  EXPECT_NE(rotation_->Report()->old_certificates_until, absl::UnixEpoch());
  Issue("05", absl::Hours(1), "04");  // for the next renewal
  EXPECT_EQ(rotation_->Report()->old_certificates_until, absl::UnixEpoch());
  EXPECT_TRUE(Step(RotationStep::kRetire).ok());
}

TEST_F(StagedRotationTest, WhatMayStillBeRenewedIsWaitedFor) {
  grace_ = 1;
  Issue("01", absl::Hours(1));
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  ASSERT_TRUE(Step(RotationStep::kActivate).ok());
  const absl::Time ends = clock_.Now() + absl::Hours(2);
  clock_.Advance(absl::Minutes(90));
  EXPECT_EQ(rotation_->Report()->old_certificates_until, ends);
  EXPECT_FALSE(Step(RotationStep::kRetire).ok());
  clock_.Advance(absl::Minutes(30));
  EXPECT_TRUE(Step(RotationStep::kRetire).ok());
}

TEST_F(StagedRotationTest, ACaFromOutsideIsNotRotatedHere) {
  Restart(/*automatic=*/true, /*plugged=*/true);
  const absl::Status refused = Step(RotationStep::kPrepare);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("comes from outside"));
  EXPECT_TRUE(absl::IsFailedPrecondition(rotation_->RecoverExpired()));
  Pass(ca::kRootLifetime * 3 / 4);
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  EXPECT_TRUE(rotation_->Gauges().ok());
}

TEST_F(StagedRotationTest, ABundleThatNobodyWasToldCountsAsOneBehind) {
  EXPECT_EQ(rotation_->Behind(), 0U);
  mesh::Session& proxy = Connect();
  EXPECT_EQ(rotation_->Behind(), 0U);
  publishes_ = false;
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  EXPECT_EQ(rotation_->Behind(), 1U);
  mesh_->SetBundles(BundlesOf(*signer_));
  EXPECT_EQ(rotation_->Behind(), 1U);
  Acknowledge(proxy);
  EXPECT_EQ(rotation_->Behind(), 0U);
}

TEST_F(StagedRotationTest, AForcedRetirementDoesNotNameTheRootAsRetiredInOrder) {
  Issue("01", absl::Hours(1));
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  ASSERT_TRUE(Step(RotationStep::kActivate).ok());
  ASSERT_TRUE(Step(RotationStep::kRetire, CaKind::kRoot, /*force=*/true).ok());
  EXPECT_THAT(mesh_->bundles()->bundles[0].retired_root_sha256, IsEmpty());
}

TEST_F(StagedRotationTest, TheScrapeTellsEachCaAndThePhase) {
  Connect();
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  const IssuerCounters counters;
  IssuerGauges gauges;
  gauges.rotation = *rotation_->Gauges();
  const std::string text = IssuerMetricsText(counters, gauges);
  for (const char* sample :
       {"postern_issuer_ca_not_after_seconds{role=\"root\",state=\"next\"} ",
        "postern_issuer_ca_not_after_seconds{role=\"root\",state=\"current\"} ",
        "postern_issuer_ca_not_after_seconds{role=\"intermediate\",state=\"next\"} ",
        "postern_issuer_ca_rotation_phase{kind=\"root\"} 1\n",
        "postern_issuer_ca_rotation_phase{kind=\"intermediate\"} 0\n",
        "postern_issuer_ca_not_followed 1\n", "postern_issuer_ca_rotation_blocked 0\n"}) {
    EXPECT_THAT(text, HasSubstr(sample));
  }
}

using AutomaticRotationTest = StagedRotationTest;

TEST_F(AutomaticRotationTest, GoesByItselfAtTwoThirdsOfTheIntermediatesLife) {
  mesh::Session& proxy = Connect();
  const std::string old = Signs();
  Pass(ca::kIntermediateLifetime * 2 / 3 - absl::Minutes(2));
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  Pass(absl::Minutes(3));
  EXPECT_EQ(Phase(), RotationPhase::kPrepared);
  EXPECT_EQ(rotation_->Report()->state.kind, CaKind::kIntermediate);
  Acknowledge(proxy);
  Issue("01", absl::Hours(1));
  Pass(kTick);
  Pass(kTick);
  EXPECT_EQ(Phase(), RotationPhase::kActive);
  EXPECT_NE(Signs(), old);
  Pass(absl::Minutes(30));
  EXPECT_EQ(Phase(), RotationPhase::kActive) << "an old certificate is in use";
  Pass(absl::Minutes(31));
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  Pass(absl::Minutes(2));
  EXPECT_EQ(Phase(), RotationPhase::kNone) << "the new one is young";
}

TEST_F(AutomaticRotationTest, ARootIsReplacedAtTwoThirdsOfItsOwn) {
  const base::Sha256Digest old = x509::Sha256OfCertificate(signer_->current()->root.get());
  Pass(ca::kRootLifetime * 2 / 3 + absl::Minutes(1));
  EXPECT_EQ(rotation_->Report()->state.kind, CaKind::kRoot);
  for (int i = 0; i < 4; ++i) {
    Pass(absl::Seconds(10));
  }
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  EXPECT_NE(x509::Sha256OfCertificate(signer_->current()->root.get()), old);
}

TEST_F(AutomaticRotationTest, WaitsForAProxyThatDoesNotFollowAndSaysSo) {
  mesh::Session& proxy = ConnectSilently();
  Pass(ca::kIntermediateLifetime * 2 / 3 + absl::Minutes(1));
  ASSERT_EQ(Phase(), RotationPhase::kPrepared);
  for (int i = 0; i < 5; ++i) {
    Pass(kTick);
  }
  EXPECT_EQ(Phase(), RotationPhase::kPrepared);
  EXPECT_THAT(rotation_->Report()->blocked, HasSubstr("198.18.0.7"));
  EXPECT_TRUE(rotation_->Gauges()->blocked);
  Acknowledge(proxy);
  Pass(kTick);
  Pass(kTick);
  EXPECT_EQ(Phase(), RotationPhase::kActive);
  EXPECT_THAT(rotation_->Report()->blocked, IsEmpty());
}

TEST_F(AutomaticRotationTest, NearTheEndItGoesOnWithoutThoseThatDoNotFollow) {
  ConnectSilently();
  Pass(ca::kIntermediateLifetime * 2 / 3 + absl::Minutes(1));
  Pass(kTick);
  ASSERT_EQ(Phase(), RotationPhase::kPrepared);
  Pass(ca::kIntermediateLifetime / 4);
  EXPECT_EQ(Phase(), RotationPhase::kActive);
}

TEST_F(AutomaticRotationTest, LeavesAnOperatorsRotationAlone) {
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  for (int i = 0; i < 3; ++i) {
    Pass(absl::Hours(1));
  }
  EXPECT_EQ(Phase(), RotationPhase::kPrepared);
  ASSERT_TRUE(Step(RotationStep::kActivate).ok());
  Pass(absl::Hours(100));
  EXPECT_EQ(Phase(), RotationPhase::kActive);
}

TEST_F(AutomaticRotationTest, GoesOnWithAnOperatorsRotationOnceTheOldCaIsDue) {
  ASSERT_TRUE(Step(RotationStep::kPrepare, CaKind::kRoot).ok());
  Pass(ca::kIntermediateLifetime * 3 / 4);
  Pass(kTick);
  EXPECT_EQ(Phase(), RotationPhase::kActive) << "the root's rotation replaces the intermediate too";
  Pass(absl::Seconds(10));
  EXPECT_EQ(Phase(), RotationPhase::kNone);
}

TEST_F(AutomaticRotationTest, CanBeSwitchedOff) {
  Restart(/*automatic=*/false);
  Pass(ca::kIntermediateLifetime * 3 / 4);
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  EXPECT_FALSE(rotation_->RecoverExpired().ok());
}

TEST_F(AutomaticRotationTest, SaysWhatItNeedsWhenTheRootsKeyIsAway) {
  KeepAway("root-");
  Pass(ca::kIntermediateLifetime * 3 / 4);
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  EXPECT_THAT(rotation_->Report()->blocked, HasSubstr("the root's key is not in the state"));
  EXPECT_EQ(signer_->CheckUsable(), absl::OkStatus());
}

TEST_F(AutomaticRotationTest, GoesOnAfterARestartInEachPhase) {
  Pass(ca::kIntermediateLifetime * 2 / 3 + absl::Minutes(1));
  ASSERT_EQ(Phase(), RotationPhase::kPrepared);
  Restart();
  Pass(kTick);
  Pass(kTick);
  ASSERT_EQ(Phase(), RotationPhase::kActive);
  Restart();
  Pass(kTick);
  EXPECT_EQ(Phase(), RotationPhase::kNone);
}

TEST_F(AutomaticRotationTest, RecoversFromAnIntermediateThatHasExpired) {
  clock_.Advance(ca::kIntermediateLifetime + absl::Hours(1));
  ASSERT_FALSE(signer_->CheckUsable().ok());
  ASSERT_TRUE(rotation_->RecoverExpired().ok());
  EXPECT_TRUE(signer_->CheckUsable().ok());
  EXPECT_THAT(BundlesOf(*signer_).bundles[0].root_der, SizeIs(1)) << "the same root";
}

TEST_F(StagedRotationTest, TellsOfARootThatHasOutlivedHalfOfItsLifeAndWhatComesNext) {
  EXPECT_THAT(rotation_->Report()->warnings, IsEmpty());
  EXPECT_EQ(rotation_->Gauges()->roots_past_half_life, 0U);
  const X509* const root = signer_->current()->root.get();
  clock_.Advance(x509::NotBefore(root) + (x509::NotAfter(root) - x509::NotBefore(root)) / 2 -
                 clock_.Now() + absl::Seconds(1));
  EXPECT_THAT(rotation_->Report()->warnings,
              ElementsAre(AllOf(HasSubstr("example.org has outlived half of its life and ends at "),
                                HasSubstr("the automatic rotation begins at "))));
  EXPECT_EQ(rotation_->Gauges()->roots_past_half_life, 1U);
  const IssuerCounters counters;
  IssuerGauges gauges;
  gauges.rotation = *rotation_->Gauges();
  EXPECT_THAT(IssuerMetricsText(counters, gauges),
              HasSubstr("postern_issuer_roots_past_half_life 1\n"));
  Restart(/*automatic=*/false);
  EXPECT_THAT(rotation_->Report()->warnings,
              ElementsAre(HasSubstr("`postern ca rotate --kind root` makes the next one")));
  ASSERT_TRUE(Step(RotationStep::kPrepare).ok());
  EXPECT_THAT(rotation_->Report()->warnings, ElementsAre(HasSubstr("is under way")))
      << "of the old root alone";
  Restart(/*automatic=*/true, /*plugged=*/true);
  EXPECT_THAT(rotation_->Report()->warnings, ElementsAre(HasSubstr("give --ca-dir a CA")));
}

}  // namespace
}  // namespace postern::service
