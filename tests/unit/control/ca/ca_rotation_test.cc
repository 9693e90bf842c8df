// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/key.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::ca {
namespace {

using store::CaRole;
using store::CaState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A store that fails at a step, before or after it did what it was asked for.
class FailingCas final : public store::CaStore {
 public:
  explicit FailingCas(store::CaStore& store) : store_(store) {}
  enum class Fail : uint8_t { kNever, kBefore, kAfter };
  Fail fail = Fail::kNever;

  absl::StatusOr<std::vector<store::CaRecord>> ListCas() override { return store_.ListCas(); }
  absl::Status AddCas(const std::vector<store::CaRecord>& records) override {
    return Do([&] { return store_.AddCas(records); });
  }
  absl::Status ActivateNextCas() override {
    return Do([&] { return store_.ActivateNextCas(); });
  }
  absl::Status DropNextCas() override {
    return Do([&] { return store_.DropNextCas(); });
  }
  absl::Status WithdrawRetiredCas(absl::Time now, bool in_order) override {
    return Do([&] { return store_.WithdrawRetiredCas(now, in_order); });
  }
  absl::StatusOr<std::vector<store::WithdrawnCa>> ListWithdrawnCas() override {
    return store_.ListWithdrawnCas();
  }
  absl::StatusOr<store::Version> BundleVersion() override { return store_.BundleVersion(); }
  absl::StatusOr<store::Version> VersionOfBundles(const base::Sha256Digest& content) override {
    return store_.VersionOfBundles(content);
  }
  absl::StatusOr<store::Version> RaiseBundleVersion() override {
    return store_.RaiseBundleVersion();
  }

 private:
  template <typename Step>
  absl::Status Do(Step step) {
    const absl::Status failed = absl::UnavailableError("disk full");
    if (fail == Fail::kBefore) {
      return failed;
    }
    const absl::Status done = step();
    return fail == Fail::kAfter ? failed : done;
  }
  store::CaStore& store_;
};

class CaRotationTest : public ::testing::TestWithParam<CaKind> {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
    cas_ = std::make_unique<FailingCas>(store_->cas());
    Restart();
    key_ = *x509::GenerateP256Key();
  }
  // A new issuer on the same store and files.
  void Restart() {
    rotation_.reset();
    signer_.reset();
    signer_ = *CaSigner::Open(
        {.state_dir = dir_.path(), .trust_domain = *x509::TrustDomain::Parse("example.org")}, *cas_,
        clock_);
    rotation_ = std::make_unique<CaRotation>(*signer_, *cas_, clock_);
  }
  RotationState State() { return *rotation_->State(); }
  RotationPhase Phase() { return State().phase; }
  std::string Current(CaRole role) { return State().Find(role, CaState::kCurrent)->record.id; }
  std::string Signs() { return signer_->current()->ca_id; }
  size_t Roots() { return signer_->bundles()->Find("example.org")->roots().size(); }
  std::vector<std::string> KeyNames() {
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(dir_.Path("keys"))) {
      names.push_back(file.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  SignedSvid Sign() {
    return *signer_->SignX509Svid({.id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                                   .public_key = key_.get(),
                                   .ttl = absl::Hours(1)});
  }
  // Whether a proxy with these bundles takes a leaf.
  bool Verifies(const SignedSvid& made, const x509::TrustBundleSet& bundles) {
    const x509::X509Ptr leaf = *x509::CertificateFromDer(base::AsBytes(made.leaf_der));
    const x509::X509StackPtr untrusted = x509::ShareX509Stack(made.signer->chain);
    return x509::VerifyPeerChain(leaf.get(), untrusted.get(), bundles, x509::PeerRole::kServer,
                                 clock_.Now())
        .peer.has_value();
  }
  std::string RootKeyPath() {
    for (const std::string& name : KeyNames()) {
      if (name.starts_with("root-")) {
        return dir_.Path("keys/" + name);
      }
    }
    return "";
  }
  bool OfRoot() const { return GetParam() == CaKind::kRoot; }
  CaKind Other() const { return OfRoot() ? CaKind::kIntermediate : CaKind::kRoot; }

  testing::TempDir dir_;
  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<FailingCas> cas_;
  std::unique_ptr<CaSigner> signer_;
  std::unique_ptr<CaRotation> rotation_;
  x509::PkeyPtr key_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, CaRotationTest,
                         ::testing::Values(CaKind::kRoot, CaKind::kIntermediate),
                         [](const auto& one) { return std::string(NameOf(one.param)); });

TEST_P(CaRotationTest, GoesThroughItsStepsWithARestartInEachPhase) {
  const CaKind kind = GetParam();
  const std::string old = Signs();
  const SignedSvid before = Sign();
  const store::Version first = signer_->bundle_version();
  ASSERT_TRUE(rotation_->Prepare(kind).ok());
  for (int i = 0; i < 2; ++i, Restart()) {
    EXPECT_EQ(Phase(), RotationPhase::kPrepared);
    EXPECT_EQ(State().kind, kind);
    EXPECT_EQ(Signs(), old);
    EXPECT_EQ(Roots(), OfRoot() ? 2U : 1U);
    EXPECT_EQ(signer_->bundle_version() > first, OfRoot());
  }
  ASSERT_TRUE(rotation_->Activate(kind).ok());
  for (int i = 0; i < 2; ++i, Restart()) {
    EXPECT_EQ(Phase(), RotationPhase::kActive);
    EXPECT_EQ(State().kind, kind);
    EXPECT_NE(Signs(), old);
    EXPECT_EQ(Roots(), OfRoot() ? 2U : 1U);
  }
  const SignedSvid after = Sign();
  EXPECT_TRUE(Verifies(before, *signer_->bundles()));
  EXPECT_TRUE(Verifies(after, *signer_->bundles()));
  ASSERT_TRUE(rotation_->Retire(kind, /*in_order=*/true).ok());
  for (int i = 0; i < 2; ++i, Restart()) {
    EXPECT_EQ(Phase(), RotationPhase::kNone);
    EXPECT_EQ(Roots(), 1U);
    EXPECT_THAT(State().cas, SizeIs(2));
    EXPECT_THAT(KeyNames(), SizeIs(2)) << "the old keys are gone";
    EXPECT_TRUE(Verifies(after, *signer_->bundles()));
    EXPECT_EQ(Verifies(before, *signer_->bundles()), !OfRoot());
  }
}

TEST_P(CaRotationTest, EachStepIsSafeToRepeat) {
  const CaKind kind = GetParam();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(rotation_->Prepare(kind).ok());
  }
  EXPECT_THAT(State().cas, SizeIs(OfRoot() ? 4 : 3));
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(rotation_->Activate(kind).ok());
  }
  const std::string signs = Signs();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(rotation_->Retire(kind, true).ok());
    ASSERT_TRUE(rotation_->Abort(kind).ok()) << "there is nothing to abort";
  }
  EXPECT_EQ(Signs(), signs);
  EXPECT_THAT(*cas_->ListWithdrawnCas(), SizeIs(OfRoot() ? 2 : 1));
}

TEST_P(CaRotationTest, StepsOutOfOrderSayWhatComesFirst) {
  const CaKind kind = GetParam();
  EXPECT_TRUE(absl::IsFailedPrecondition(rotation_->Activate(kind)));
  ASSERT_TRUE(rotation_->Prepare(kind).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(rotation_->Retire(kind, true)));
  for (const absl::Status& status : {rotation_->Prepare(Other()), rotation_->Activate(Other()),
                                     rotation_->Retire(Other(), true), rotation_->Abort(Other())}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("is under way (prepared)"));
  }
  ASSERT_TRUE(rotation_->Activate(kind).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(rotation_->Prepare(kind)));
  EXPECT_TRUE(absl::IsFailedPrecondition(rotation_->Abort(kind)));
  EXPECT_EQ(Phase(), RotationPhase::kActive);
}

TEST_P(CaRotationTest, AnAbortedRotationLeavesWhatWasThere) {
  const std::string old = Signs();
  const std::vector<std::string> keys = KeyNames();
  ASSERT_TRUE(rotation_->Prepare(GetParam()).ok());
  const store::Version prepared = signer_->bundle_version();
  ASSERT_TRUE(rotation_->Abort(GetParam()).ok());
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  EXPECT_EQ(Signs(), old);
  EXPECT_EQ(Roots(), 1U);
  EXPECT_EQ(KeyNames(), keys);
  EXPECT_EQ(signer_->bundle_version() > prepared, OfRoot()) << "the proxies are told";
  ASSERT_TRUE(rotation_->Prepare(GetParam()).ok());
}

// Wherever a step is interrupted, a restart finds a whole CA, and the step can be made again.
TEST_P(CaRotationTest, AStepThatTheStoreInterruptsIsMadeAgain) {
  using Fail = FailingCas::Fail;
  const CaKind kind = GetParam();
  for (const auto& step : std::vector<std::function<absl::Status()>>{
           [&] { return rotation_->Prepare(kind); }, [&] { return rotation_->Activate(kind); },
           [&] { return rotation_->Retire(kind, true); }, [&] { return rotation_->Prepare(kind); },
           [&] { return rotation_->Abort(kind); }}) {
    for (const Fail fail : {Fail::kBefore, Fail::kAfter}) {
      cas_->fail = fail;
      EXPECT_TRUE(absl::IsUnavailable(step())) << static_cast<int>(fail);
      cas_->fail = Fail::kNever;
      Restart();
      const SignedSvid made = Sign();
      EXPECT_TRUE(Verifies(made, *signer_->bundles()));
      const RotationState state = State();
      for (const CaFacts& ca : state.cas) {
        EXPECT_TRUE(ca.key_present) << NameOf(ca.record.state);
      }
      EXPECT_THAT(KeyNames(), SizeIs(state.cas.size()));
    }
    EXPECT_TRUE(step().ok()) << "what the store did is not undone";
  }
}

TEST_P(CaRotationTest, WithoutARestartResumeDoesTheSame) {
  const CaKind kind = GetParam();
  ASSERT_TRUE(rotation_->Prepare(kind).ok());
  const std::string old = Signs();
  cas_->fail = FailingCas::Fail::kAfter;
  ASSERT_FALSE(rotation_->Activate(kind).ok());
  EXPECT_EQ(Signs(), old) << "half of a step";
  cas_->fail = FailingCas::Fail::kNever;
  ASSERT_TRUE(rotation_->Resume().ok());
  EXPECT_NE(Signs(), old);
}

TEST_P(CaRotationTest, DoesNotActivateWhatItsKeyDoesNotFit) {
  ASSERT_TRUE(rotation_->Prepare(GetParam()).ok());
  const std::string next =
      State().Find(CaRole::kIntermediate, CaState::kNext)->record.id.substr(0, 16);
  std::filesystem::remove(dir_.Path("keys/intermediate-" + next + ".pem"));
  const std::string old = Signs();
  const absl::Status refused = rotation_->Activate(GetParam());
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_EQ(Phase(), RotationPhase::kPrepared);
  EXPECT_EQ(Signs(), old);
  EXPECT_TRUE(rotation_->Abort(GetParam()).ok());
}

class CaRotationDetailTest : public CaRotationTest {};
INSTANTIATE_TEST_SUITE_P(OfARoot, CaRotationDetailTest, ::testing::Values(CaKind::kRoot));

TEST_P(CaRotationDetailTest, NamesARootThatWasRetiredInOrderAndNoOther) {
  const base::Sha256Digest first = x509::Sha256OfCertificate(signer_->current()->root.get());
  const auto retired = [this] { return signer_->bundles()->Find("example.org")->retired_roots(); };
  ASSERT_TRUE(rotation_->Prepare(CaKind::kRoot).ok());
  ASSERT_TRUE(rotation_->Activate(CaKind::kRoot).ok());
  EXPECT_THAT(retired(), IsEmpty());
  ASSERT_TRUE(rotation_->Retire(CaKind::kRoot, /*in_order=*/true).ok());
  EXPECT_THAT(retired(), ElementsAre(first));
  ASSERT_TRUE(rotation_->Prepare(CaKind::kRoot).ok());
  ASSERT_TRUE(rotation_->Activate(CaKind::kRoot).ok());
  ASSERT_TRUE(rotation_->Retire(CaKind::kRoot, /*in_order=*/false).ok());
  Restart();
  EXPECT_THAT(retired(), ElementsAre(first)) << "one that was forced out ends its connections";
}

TEST_P(CaRotationDetailTest, AnIntermediateNeedsTheRootsKeyAndARootDoesNot) {
  const std::string path = RootKeyPath();
  const std::string aside = dir_.Path("aside.pem");
  std::filesystem::rename(path, aside);
  const absl::Status refused = rotation_->Prepare(CaKind::kIntermediate);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr(path)) << "says what to put where";
  EXPECT_EQ(Phase(), RotationPhase::kNone);
  std::filesystem::rename(aside, path);
  ASSERT_TRUE(rotation_->Prepare(CaKind::kIntermediate).ok());
  ASSERT_TRUE(rotation_->Abort(CaKind::kIntermediate).ok());
  std::filesystem::remove(path);
  ASSERT_TRUE(rotation_->Prepare(CaKind::kRoot).ok());
  ASSERT_TRUE(rotation_->Activate(CaKind::kRoot).ok());
  ASSERT_TRUE(rotation_->Retire(CaKind::kRoot, true).ok());
  EXPECT_THAT(KeyNames(), SizeIs(2));
}

TEST_P(CaRotationDetailTest, NoIntermediateIsMadeBelowARootThatHasExpired) {
  clock_.Advance(kRootLifetime);
  EXPECT_TRUE(absl::IsFailedPrecondition(rotation_->Prepare(CaKind::kIntermediate)));
  EXPECT_TRUE(rotation_->Prepare(CaKind::kRoot).ok());
}

TEST_P(CaRotationDetailTest, KeysOfTheNextCaAreAsPrivateAsTheOthers) {
  ASSERT_TRUE(rotation_->Prepare(CaKind::kRoot).ok());
  ASSERT_THAT(KeyNames(), SizeIs(4));
  for (const std::string& name : KeyNames()) {
    const auto mode = std::filesystem::status(dir_.Path("keys/" + name)).permissions();
    EXPECT_EQ(static_cast<unsigned>(mode), 0600U) << name;
  }
}

}  // namespace
}  // namespace postern::ca
