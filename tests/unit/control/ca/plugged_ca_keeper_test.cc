// SPDX-License-Identifier: Apache-2.0
#include "control/ca/plugged_ca_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "control/ca/ca_rotation.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/ca_mount.h"
#include "tests/testing/temp_dir.h"

namespace postern::ca {
namespace {

using testing::CaMount;
using testing::CaSpec;
using testing::CertificateSpec;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TestCa;

constexpr absl::Duration kLongestTtl = absl::Hours(24);

class PluggedCaKeeperTest : public ::testing::Test {
 protected:
  PluggedCaKeeperTest() : store_(*store::OpenMemoryStore(domain_, clock_)) {}

  absl::Status Open() {
    keeper_.reset();
    signer_.reset();
    auto opened = PluggedCaKeeper::Open({.directory = {mount_.path()}, .longest_ttl = kLongestTtl},
                                        Options(), store_->cas(), clock_);
    if (!opened.ok()) {
      return opened.status();
    }
    signer_ = std::move(opened->signer);
    keeper_ = std::move(opened->keeper);
    keeper_->SetHooks({.behind =
                           [this](store::Version version) {
                             asked_for_ = version;
                             return behind_;
                           },
                       .bundles_changed = [this] { ++bundle_changes_; }});
    return absl::OkStatus();
  }
  CaOptions Options() const { return {.state_dir = dir_.path(), .trust_domain = domain_}; }

  // A second goes by, so often.
  void Tick(int times = 1) {
    for (int i = 0; i < times; ++i) {
      clock_.Advance(absl::Seconds(1));
      keeper_->Tick();
    }
  }
  bool SignsWith(const TestCa& ca) const {
    return X509_cmp(signer_->current()->chain.front().get(), ca.certificate()) == 0;
  }
  bool Trusts(const TestCa& ca) const {
    for (const auto& root : signer_->bundles()->Find("example.org")->roots()) {
      if (X509_cmp(root.get(), ca.root()) == 0) {
        return true;
      }
    }
    return false;
  }
  size_t Roots() const { return signer_->bundles()->Find("example.org")->roots().size(); }
  std::vector<base::Sha256Digest> Retired() const {
    return signer_->bundles()->Find("example.org")->retired_roots();
  }
  uint64_t Refused(CaProblem problem) const {
    return keeper_->status().refused[static_cast<size_t>(problem)];
  }
  bool Signs() const {
    const x509::PkeyPtr key = testing::MakeKey();
    return signer_
        ->SignX509Svid({.id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                        .public_key = key.get(),
                        .ttl = absl::Hours(1)})
        .ok();
  }
  static TestCa NewRoot(std::string_view name) { return TestCa("example.org", CaSpec(name)); }

  const testing::TempDir dir_;
  fakes::FakeClock clock_;
  const x509::TrustDomain domain_ = *x509::TrustDomain::Parse("example.org");
  CaMount mount_{dir_.Path("ca")};
  const TestCa root_ = NewRoot("first root");
  const TestCa first_ = root_.Intermediate(CaSpec("first"));
  const TestCa second_ = root_.Intermediate(CaSpec("second"));
  const TestCa other_root_ = NewRoot("other root");
  const TestCa other_ = other_root_.Intermediate(CaSpec("other"));
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<CaSigner> signer_;
  std::unique_ptr<PluggedCaKeeper> keeper_;
  size_t behind_ = 0;  // what the mesh answers
  store::Version asked_for_;
  int bundle_changes_ = 0;
};

TEST_F(PluggedCaKeeperTest, SignsWithTheDirectorysCaFromTheStart) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok()) << Open();
  EXPECT_TRUE(SignsWith(first_));
  EXPECT_TRUE(Trusts(root_));
  EXPECT_TRUE(Signs());
  EXPECT_GT(signer_->bundle_version().sequence, 0U);
  EXPECT_TRUE(store_->cas().ListCas()->empty());  // none of our own was made
  EXPECT_FALSE(std::filesystem::exists(dir_.Path("keys")));
}

TEST_F(PluggedCaKeeperTest, DoesNotStartWithABadOne) {
  EXPECT_TRUE(absl::IsFailedPrecondition(Open()));
  EXPECT_THAT(std::string(base::Message(Open())), HasSubstr("--ca-dir: unreadable"));
  CertificateSpec expired = CaSpec("expired");
  expired.not_after = clock_.Now() - absl::Hours(1);
  mount_.Write(root_.Intermediate(expired));
  EXPECT_THAT(std::string(base::Message(Open())), HasSubstr("--ca-dir: expired"));
}

TEST_F(PluggedCaKeeperTest, TakesANewIntermediateOfTheSameRoot) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  const store::Version version = signer_->bundle_version();
  mount_.Write(second_);
  Tick();
  EXPECT_TRUE(SignsWith(first_));  // seen once: it may be half written
  Tick();
  EXPECT_TRUE(SignsWith(second_));
  EXPECT_TRUE(Signs());
  EXPECT_EQ(signer_->bundle_version(), version);
  EXPECT_EQ(bundle_changes_, 0);
  EXPECT_EQ(keeper_->status().changes, 1U);
  EXPECT_FALSE(keeper_->status().waiting);
}

TEST_F(PluggedCaKeeperTest, FollowsSymlinkSwaps) {
  mount_.Swap(first_);
  ASSERT_TRUE(Open().ok());
  for (int i = 0; i < 10; ++i) {
    const TestCa& next = i % 2 == 0 ? second_ : first_;
    mount_.Swap(next);
    Tick(2);
    EXPECT_TRUE(SignsWith(next)) << i;
  }
  EXPECT_EQ(keeper_->status().changes, 10U);
  EXPECT_FALSE(keeper_->status().refusing);
}

TEST_F(PluggedCaKeeperTest, ASwapThatIsNeverFinishedIsNotTakenForAnything) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  // A tool that writes without end: never the same content twice.
  for (int i = 0; i < 20; ++i) {
    mount_.Put("ca-cert.pem", x509::CertificateToPem(second_.certificate()) +
                                  std::string(static_cast<size_t>(i), '\n'));
    Tick();
  }
  EXPECT_TRUE(SignsWith(first_));
  EXPECT_FALSE(keeper_->status().refusing);
  mount_.Write(second_);
  Tick(2);
  EXPECT_TRUE(SignsWith(second_));
}

TEST_F(PluggedCaKeeperTest, RefusesABadOneLoudlyAndGoesOn) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  CertificateSpec constrained = CaSpec("constrained");
  constrained.name_constraints = "permitted;URI:other.org";
  CertificateSpec leaf = CaSpec("leaf");
  leaf.ca = false;
  CertificateSpec expired = CaSpec("expired");
  expired.not_after = clock_.Now() - absl::Hours(1);
  const std::pair<CertificateSpec, CaProblem> bad[] = {{constrained, CaProblem::kConstrained},
                                                       {leaf, CaProblem::kNotCa},
                                                       {expired, CaProblem::kExpired}};
  for (const auto& [spec, problem] : bad) {
    mount_.Write(root_.Intermediate(spec));
    Tick(10);
    EXPECT_EQ(Refused(problem), 1U) << Token(problem);  // once for each content
    EXPECT_TRUE(keeper_->status().refusing);
    EXPECT_TRUE(SignsWith(first_));
    EXPECT_TRUE(signer_->CheckUsable().ok());
  }
  mount_.Write(second_);
  mount_.Put("ca-key.pem", testing::KeyPem(first_.key()));
  Tick(2);
  EXPECT_EQ(Refused(CaProblem::kKeyMismatch), 1U);
  std::filesystem::remove_all(mount_.path());
  Tick(2);
  EXPECT_EQ(Refused(CaProblem::kUnreadable), 1U);
  EXPECT_TRUE(Signs());
  // What is in use comes back, and then a good one.
  std::filesystem::create_directory(mount_.path());
  mount_.Write(first_);
  Tick(2);
  EXPECT_FALSE(keeper_->status().refusing);
  EXPECT_EQ(keeper_->status().changes, 0U);
  mount_.Write(second_);
  Tick(2);
  EXPECT_TRUE(SignsWith(second_));
}

TEST_F(PluggedCaKeeperTest, EachTruncationOfTheFilesLeavesTheOldOneSigning) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  mount_.Write(second_);
  const std::string whole = mount_.Read("ca-cert.pem");
  for (size_t size = 0; size + 1 < whole.size(); ++size) {
    mount_.Put("ca-cert.pem", whole.substr(0, size));
    Tick(2);
    ASSERT_TRUE(SignsWith(first_)) << size;
    ASSERT_TRUE(keeper_->status().refusing) << size;
  }
  mount_.Put("ca-cert.pem", whole);
  Tick(2);
  EXPECT_TRUE(SignsWith(second_));
  EXPECT_FALSE(keeper_->status().refusing);
}

TEST_F(PluggedCaKeeperTest, TakesACaOfTheFutureWhenItsTimeHasCome) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  CertificateSpec early = CaSpec("early");
  early.not_before = clock_.Now() + absl::Minutes(5);
  const TestCa future = root_.Intermediate(early);
  mount_.Write(future);
  Tick(60);
  EXPECT_EQ(Refused(CaProblem::kNotYetValid), 1U);
  EXPECT_TRUE(SignsWith(first_));
  Tick(400);
  EXPECT_TRUE(SignsWith(future));
  EXPECT_EQ(Refused(CaProblem::kNotYetValid), 1U);
}

TEST_F(PluggedCaKeeperTest, ANewRootIsKnownBeforeItsCaSigns) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  const store::Version before = signer_->bundle_version();
  behind_ = 3;
  mount_.Write(other_);
  Tick(2);
  EXPECT_GT(signer_->bundle_version(), before);
  EXPECT_EQ(asked_for_, signer_->bundle_version());
  EXPECT_EQ(bundle_changes_, 1);
  EXPECT_TRUE(Trusts(root_));
  EXPECT_TRUE(Trusts(other_root_));
  EXPECT_TRUE(SignsWith(first_));
  EXPECT_TRUE(keeper_->status().waiting);
  Tick(30);
  EXPECT_TRUE(SignsWith(first_));
  behind_ = 0;
  Tick();
  EXPECT_TRUE(SignsWith(other_));
  EXPECT_FALSE(keeper_->status().waiting);
  // What the first one signed is good for as long as it may live, and no longer.
  EXPECT_TRUE(Trusts(root_));
  EXPECT_EQ(keeper_->status().leaving_roots, 1U);
  const store::Version both = signer_->bundle_version();
  clock_.Advance(kLongestTtl - absl::Minutes(1));
  Tick();
  EXPECT_TRUE(Trusts(root_));
  clock_.Advance(absl::Minutes(1));
  Tick();
  EXPECT_FALSE(Trusts(root_));
  EXPECT_TRUE(Trusts(other_root_));
  EXPECT_GT(signer_->bundle_version(), both);
  EXPECT_EQ(bundle_changes_, 2);
  EXPECT_EQ(keeper_->status().leaving_roots, 0U);
}

TEST_F(PluggedCaKeeperTest, ARootThatLeftInTimeIsNamedSoThatConnectionsGoOn) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  mount_.Write(other_);
  Tick(2);
  ASSERT_TRUE(SignsWith(other_));
  EXPECT_THAT(Retired(), IsEmpty());
  clock_.Advance(kLongestTtl);
  Tick();
  const auto left = ElementsAre(x509::Sha256OfCertificate(root_.root()));
  EXPECT_FALSE(Trusts(root_));
  EXPECT_THAT(Retired(), left);
  const store::Version version = signer_->bundle_version();
  Tick(10);
  ASSERT_TRUE(Open().ok());
  EXPECT_FALSE(Trusts(root_));
  EXPECT_THAT(Retired(), left) << "after a restart";
  EXPECT_EQ(signer_->bundle_version(), version);
  mount_.Write(first_);
  Tick(2);
  EXPECT_TRUE(Trusts(root_));
  EXPECT_THAT(Retired(), IsEmpty()) << "it is back";
}

TEST_F(PluggedCaKeeperTest, ARootWhoseTimeCameWhileItWasStoppedIsNamedAsWell) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  mount_.Write(other_);
  Tick(2);
  ASSERT_TRUE(SignsWith(other_));
  keeper_.reset();
  clock_.Advance(kLongestTtl);
  ASSERT_TRUE(Open().ok());
  EXPECT_FALSE(Trusts(root_));
  EXPECT_THAT(Retired(), SizeIs(1));
}

TEST_F(PluggedCaKeeperTest, DoesNotWaitForEverForAProxyThatDoesNotFollow) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  behind_ = 1;
  mount_.Write(other_);
  Tick(100);
  EXPECT_TRUE(SignsWith(first_));
  Tick(30);
  EXPECT_TRUE(SignsWith(other_));
}

TEST_F(PluggedCaKeeperTest, ARootThatNothingNeedsLeavesAtOnce) {
  mount_.Write(first_, root_.RootPem() + other_root_.RootPem());
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(Trusts(other_root_));
  const store::Version before = signer_->bundle_version();
  mount_.Write(first_);
  Tick(2);
  EXPECT_FALSE(Trusts(other_root_));
  EXPECT_TRUE(Trusts(root_));
  EXPECT_THAT(Retired(), IsEmpty()) << "the operator's word: connections on it end";
  EXPECT_GT(signer_->bundle_version(), before);
  EXPECT_EQ(keeper_->status().leaving_roots, 0U);
}

// As operators are told to do it: both roots, then the CA, then one root.
TEST_F(PluggedCaKeeperTest, ARotationInThreeStepsNeedsNoPatience) {
  const std::string both = root_.RootPem() + other_root_.RootPem();
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  mount_.Write(first_, both);
  Tick(2);
  EXPECT_EQ(Roots(), 2U);
  mount_.Write(other_, both);
  Tick(2);
  EXPECT_TRUE(SignsWith(other_));
  EXPECT_EQ(keeper_->status().leaving_roots, 0U);
  mount_.Write(other_);
  Tick(2);
  EXPECT_EQ(Roots(), 1U);
  EXPECT_FALSE(Trusts(root_));
}

TEST_F(PluggedCaKeeperTest, ARestartForgetsNothing) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  mount_.Write(other_);
  Tick(2);
  ASSERT_TRUE(SignsWith(other_));
  const store::Version version = signer_->bundle_version();
  clock_.Advance(absl::Hours(1));
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(SignsWith(other_));
  EXPECT_TRUE(Trusts(root_));
  EXPECT_EQ(signer_->bundle_version(), version);  // the same roots
  clock_.Advance(kLongestTtl - absl::Hours(1));
  Tick();
  EXPECT_FALSE(Trusts(root_));
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Roots(), 1U);
}

TEST_F(PluggedCaKeeperTest, AChangeWhileTheIssuerWasAwayKeepsTheOldRootForAWhile) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  const store::Version version = signer_->bundle_version();
  mount_.Write(other_);
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(SignsWith(other_));
  EXPECT_TRUE(Trusts(root_));
  EXPECT_GT(signer_->bundle_version(), version);
  clock_.Advance(kLongestTtl);
  Tick();
  EXPECT_FALSE(Trusts(root_));
}

TEST_F(PluggedCaKeeperTest, WhatOurOwnCaRetiredInOrderIsStillNamed) {
  base::Sha256Digest retired{};
  {
    auto own = CaSigner::Open(Options(), store_->cas(), clock_);
    ASSERT_TRUE(own.ok());
    retired = x509::Sha256OfCertificate((*own)->current()->root.get());
    CaRotation rotation(**own, store_->cas(), clock_);
    ASSERT_TRUE(rotation.Prepare(CaKind::kRoot).ok());
    ASSERT_TRUE(rotation.Activate(CaKind::kRoot).ok());
    ASSERT_TRUE(rotation.Retire(CaKind::kRoot, /*in_order=*/true).ok());
  }
  mount_.Write(other_);
  ASSERT_TRUE(Open().ok());
  EXPECT_THAT(Retired(), ElementsAre(retired));
  Tick(2);
  ASSERT_TRUE(SignsWith(other_));
  EXPECT_EQ(Roots(), 2U);
  EXPECT_THAT(Retired(), ElementsAre(retired));
  ASSERT_TRUE(Open().ok());
  EXPECT_THAT(Retired(), ElementsAre(retired)) << "after a restart";
}

TEST_F(PluggedCaKeeperTest, ReplacesACaOfOurOwnInStages) {
  auto own = CaSigner::Open(Options(), store_->cas(), clock_);
  ASSERT_TRUE(own.ok());
  const std::string own_id = (*own)->current()->ca_id;
  const store::Version version = (*own)->bundle_version();
  mount_.Write(first_);
  behind_ = 1;
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(signer_->current()->ca_id, own_id);
  Tick();
  EXPECT_EQ(signer_->current()->ca_id, own_id);
  EXPECT_EQ(Roots(), 2U);
  EXPECT_GT(signer_->bundle_version(), version);
  ASSERT_TRUE(Open().ok());  // a restart in between
  EXPECT_EQ(signer_->current()->ca_id, own_id);
  behind_ = 0;
  Tick();
  EXPECT_TRUE(SignsWith(first_));
  EXPECT_EQ(Roots(), 2U);
  ASSERT_TRUE(Open().ok());  // and after
  EXPECT_TRUE(SignsWith(first_));
  EXPECT_EQ(Roots(), 2U);
  clock_.Advance(kLongestTtl);
  Tick();
  EXPECT_EQ(Roots(), 1U);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Roots(), 1U);
  EXPECT_TRUE(Trusts(root_));
}

TEST_F(PluggedCaKeeperTest, GoingBackToOurOwnCaIsAsked) {
  EXPECT_TRUE(PluggedCaKeeper::CheckNotPlugged(dir_.path()).ok());
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  const absl::Status status = PluggedCaKeeper::CheckNotPlugged(dir_.path());
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("plugged-roots.pem"));
}

TEST_F(PluggedCaKeeperTest, ADamagedMemoryOfTheRootsStopsTheStart) {
  mount_.Write(first_);
  ASSERT_TRUE(Open().ok());
  dir_.Write(kPublishedRootsFile, "damaged");
  EXPECT_TRUE(absl::IsDataLoss(Open()));
}

}  // namespace
}  // namespace postern::ca
