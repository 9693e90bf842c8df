// SPDX-License-Identifier: Apache-2.0
// Foreign bundles that nobody confirms any more, through ForeignBundles.
#include "control/federation/bundle_age.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "control/federation/foreign_bundles.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/control/federation/neighbours.h"

namespace postern::federation {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TestCa;

class BundleAgeTest : public ::testing::Test {
 protected:
  void SetUp() override { store_ = *store::OpenMemoryStore(Td("a.test"), clock_); }

  void Open(const std::vector<std::string>& specs) {
    ForeignBundles::Options options{.own = Td("a.test"), .specs = {}};
    for (const std::string& text : specs) {
      options.specs.push_back(*FederationSpec::Parse(text));
    }
    options.own_bundles = [this] {
      return std::make_shared<const x509::TrustBundleSet>(a_.BundleSet());
    };
    options.fetch = [this](const HttpsUrl& /*url*/,
                           const ServerTrust& trust) -> absl::StatusOr<std::string> {
      trusted_ = trust.bundles;
      return away_ ? absl::StatusOr<std::string>(absl::UnavailableError("away"))
                   : x509::SpiffeBundleToJson(b_.Bundle(), 5, absl::Minutes(10));
    };
    bundles_.reset();
    bundles_ = *ForeignBundles::Create(std::move(options), store_->foreign_bundles(), clock_);
    bundles_->SetOnChange([this] { ++changes_; });
  }
  ForeignStatus Only() const { return bundles_->Status().front(); }
  void Pass(absl::Duration time) {
    clock_.Advance(time);
    bundles_->RunDue();
  }

  fakes::FakeClock clock_;
  postern::testing::TempDir dir_;
  const TestCa a_{"a.test"};
  const TestCa b_{"b.test"};
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<ForeignBundles> bundles_;
  std::shared_ptr<const x509::TrustBundleSet> trusted_;  // by the last fetch
  bool away_ = false;
  int changes_ = 0;
};

TEST_F(BundleAgeTest, AfterADayItIsToldAndGoesOnUnlessAskedOtherwise) {
  Open({kWeb});
  bundles_->RunDue();
  away_ = true;
  Pass(absl::Hours(24));
  EXPECT_FALSE(Only().stale);
  Pass(absl::Seconds(1));
  EXPECT_TRUE(Only().stale);
  EXPECT_FALSE(Only().distrusted);
  EXPECT_THAT(Only().root_der, SizeIs(1));
  EXPECT_EQ(changes_, 1) << "nobody is sent anything else";
}

TEST_F(BundleAgeTest, ItIsDistrustedWhereThatIsAskedForAndTrustedAgainWhenItIsConfirmed) {
  Open({base::StrCat(kWeb, ",max-age=1h,on-stale=distrust")});
  bundles_->RunDue();
  ASSERT_EQ(changes_, 1);
  away_ = true;
  Pass(absl::Hours(1) + absl::Seconds(1));
  EXPECT_TRUE(Only().stale);
  EXPECT_TRUE(Only().distrusted);
  EXPECT_EQ(changes_, 2);
  EXPECT_THAT(Only().root_der, SizeIs(1)) << "it is held still";
  Pass(absl::Hours(1));
  EXPECT_EQ(changes_, 2) << "told once";
  away_ = false;
  Pass(absl::Hours(1));
  EXPECT_FALSE(Only().stale);
  EXPECT_FALSE(Only().distrusted);
  EXPECT_EQ(changes_, 3) << "though the document is the same";
}

TEST_F(BundleAgeTest, ARestartDoesNotMakeItYounger) {
  Open({base::StrCat(kWeb, ",max-age=1h,on-stale=distrust")});
  bundles_->RunDue();
  clock_.Advance(absl::Hours(2));
  Open({base::StrCat(kWeb, ",max-age=1h,on-stale=distrust")});
  EXPECT_TRUE(Only().distrusted) << "before anything is fetched or told";
}

TEST_F(BundleAgeTest, AnEndpointThatIsKnownByItsOwnBundleIsKnownByItStill) {
  const std::string file =
      dir_.Write("b.json", x509::SpiffeBundleToJson(b_.Bundle(), std::nullopt, std::nullopt));
  Open({base::StrCat(kSelf, ",bundle=", file, ",max-age=1h,on-stale=distrust")});
  away_ = true;
  Pass(absl::Hours(1) + absl::Seconds(1));
  EXPECT_TRUE(Only().distrusted) << "never confirmed, from the start on";
  away_ = false;
  Pass(absl::Hours(1));
  ASSERT_NE(trusted_, nullptr);
  EXPECT_NE(trusted_->Find("b.test"), nullptr);
  EXPECT_FALSE(Only().distrusted);
}

TEST_F(BundleAgeTest, AnotherEndpointIsNotKnownByABundleThatIsDistrusted) {
  const std::string b =
      dir_.Write("b.json", x509::SpiffeBundleToJson(b_.Bundle(), std::nullopt, std::nullopt));
  Open({base::StrCat(kSelf, ",bundle=", b, ",max-age=1h,on-stale=distrust"),
        "trust-domain=c.test,url=https://c.test/,profile=https_spiffe,"
        "endpoint-id=spiffe://b.test/hub"});
  away_ = true;
  Pass(absl::Hours(1) + absl::Seconds(1));
  trusted_.reset();
  EXPECT_FALSE(bundles_->Refresh("c.test", false).ok());
  EXPECT_EQ(trusted_, nullptr) << "it was not even dialled";
}

TEST_F(BundleAgeTest, ItIsFetchedOftenEnoughNotToGrowStaleBetweenTwoFetches) {
  Open({base::StrCat(kWeb, ",max-age=6m")});
  bundles_->RunDue();
  EXPECT_EQ(Only().refresh, absl::Minutes(2));
  Open({base::StrCat(kWeb, ",max-age=3m")});
  EXPECT_EQ(Only().refresh, kShortestRefresh);
  EXPECT_THAT(Only().last_error, IsEmpty());
}

}  // namespace
}  // namespace postern::federation
