// SPDX-License-Identifier: Apache-2.0
#include "control/issue/entry_budget.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/fakes/fake_clock.h"

namespace postern::issue {
namespace {

constexpr absl::Duration kTtl = absl::Hours(1);
constexpr auto kMost = static_cast<int>(EntryBudget::kMost);

class EntryBudgetTest : public ::testing::Test {
 protected:
  int TakeAll(const std::string& entry) {
    int taken = 0;
    while (taken < 10 * kMost && budget_.Take(entry, kTtl)) {
      ++taken;
    }
    return taken;
  }
  fakes::FakeClock clock_;
  EntryBudget budget_{clock_};
};

TEST_F(EntryBudgetTest, OneEntryIsGivenSoManyAndNobodyElseFeelsIt) {
  EXPECT_EQ(TakeAll("a"), kMost);
  EXPECT_TRUE(budget_.Take("b", kTtl));
  EXPECT_FALSE(budget_.Take("a", kTtl));
}

TEST_F(EntryBudgetTest, AsManyAgainAreSpreadOverALifetime) {
  EXPECT_EQ(TakeAll("a"), kMost);
  clock_.Advance(kTtl / 2);
  EXPECT_EQ(TakeAll("a"), kMost / 2);
  clock_.Advance(10 * kTtl);
  EXPECT_EQ(TakeAll("a"), kMost) << "and no more, whatever the pause";
}

TEST_F(EntryBudgetTest, ForgetsWhoIsFullAgain) {
  TakeAll("a");
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(budget_.Take("once" + std::to_string(i), kTtl));
    clock_.Advance(absl::Seconds(2));
  }
  EXPECT_LT(budget_.size(), 1100U);
  TakeAll("b");
  EXPECT_FALSE(budget_.Take("b", kTtl));
}

}  // namespace
}  // namespace postern::issue
