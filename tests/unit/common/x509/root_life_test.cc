// SPDX-License-Identifier: Apache-2.0
#include "common/x509/root_life.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TestCa;

class RootLifeTest : public ::testing::Test {
 protected:
  TrustBundleSet Both() const {
    std::vector<TrustBundle> bundles;
    bundles.push_back(a_.Bundle());
    bundles.push_back(b_.Bundle());
    return TrustBundleSet(std::move(bundles));
  }
  // A moment at that part of a root's life.
  static absl::Time At(const TestCa& ca, double part) {
    const absl::Time begin = NotBefore(ca.root());
    return begin + (NotAfter(ca.root()) - begin) * part;
  }

  const TestCa a_{"a.test"};
  const TestCa b_{"b.test"};
  const TrustBundleSet bundles_ = a_.BundleSet();
};

TEST_F(RootLifeTest, FindsARootFromHalfOfItsLifeOn) {
  EXPECT_THAT(FindAgingRoots(bundles_, At(a_, 0.49)), IsEmpty());
  const auto half = FindAgingRoots(bundles_, At(a_, 0.5) + absl::Seconds(1));
  ASSERT_THAT(half, SizeIs(1));
  EXPECT_EQ(half[0].trust_domain, "a.test");
  EXPECT_EQ(half[0].not_after, NotAfter(a_.root()));
  EXPECT_FALSE(half[0].expired);
  EXPECT_THAT(half[0].Sentence(), HasSubstr("a.test has outlived half of its life and ends at "));
  const auto over = FindAgingRoots(bundles_, At(a_, 1.01));
  ASSERT_THAT(over, SizeIs(1));
  EXPECT_TRUE(over[0].expired);
  EXPECT_THAT(over[0].Sentence(), HasSubstr("has expired at "));
  EXPECT_THAT(FindAgingRoots(Both(), At(a_, 0.9)), SizeIs(2)) << "each by itself";
}

TEST_F(RootLifeTest, AReminderIsGivenOnceAWeekAndAtTheEnd) {
  RootReminder reminder;
  const absl::Time half = At(a_, 0.5) + absl::Seconds(1);
  EXPECT_THAT(reminder.Look(bundles_, At(a_, 0.4)), IsEmpty());
  EXPECT_EQ(reminder.count(), 0U);
  EXPECT_THAT(reminder.Look(bundles_, half), SizeIs(1));
  EXPECT_EQ(reminder.count(), 1U);
  // Whatever a week is to this root's life: nothing sooner, but for its end.
  const absl::Time later = std::min(half + absl::Hours(1), At(a_, 0.9));
  EXPECT_THAT(reminder.Look(bundles_, later), IsEmpty());
  EXPECT_EQ(reminder.count(), 1U) << "it is still there";
  EXPECT_THAT(reminder.Look(bundles_, At(a_, 1.01)), SizeIs(1)) << "expired since";
  EXPECT_THAT(reminder.Look(bundles_, At(a_, 1.01) + absl::Hours(1)), IsEmpty());
  EXPECT_THAT(reminder.Look(bundles_, At(a_, 1.01) + RootReminder::kEvery), SizeIs(1));
  EXPECT_THAT(reminder.Look(TrustBundleSet(), At(a_, 1.01)), IsEmpty());
  EXPECT_EQ(reminder.count(), 0U) << "it was taken out";
}

}  // namespace
}  // namespace postern::x509
