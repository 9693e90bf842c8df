// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/sweep.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/testing/run_loop.h"

namespace postern::session {
namespace {

using std::chrono::milliseconds;

class SweepTest : public ::testing::Test {
 protected:
  // So many connections; counts the visits of each, and the most within one turn of the loop.
  std::unique_ptr<Sweep> Over(size_t connections, milliseconds period) {
    return std::make_unique<Sweep>(*loop_, period,
                                   Sweep::Source{[this, connections] {
                                                   ++rounds_;
                                                   std::vector<uint64_t> ids(connections);
                                                   std::iota(ids.begin(), ids.end(), 1);
                                                   return ids;
                                                 },
                                                 [this](uint64_t id) { Visit(id); }});
  }
  void Visit(uint64_t id) {
    ++visits_[id];
    in_a_turn_ = loop_->Now() == turn_ ? in_a_turn_ + 1 : 1;
    turn_ = loop_->Now();
    most_in_a_turn_ = std::max(most_in_a_turn_, in_a_turn_);
  }

  std::unique_ptr<net::Loop> loop_ = net::Loop::Create().value();
  std::map<uint64_t, int> visits_;
  int rounds_ = 0;
  milliseconds turn_{-1};
  size_t in_a_turn_ = 0;
  size_t most_in_a_turn_ = 0;
};

TEST_F(SweepTest, ComesToEachOneOnceARoundAFewAtATime) {
  const auto sweep = Over(300, milliseconds(200));
  sweep->Start();
  ASSERT_TRUE(testing::RunUntil(*loop_, [this] { return rounds_ == 3; }));
  EXPECT_EQ(visits_.size(), 300U);
  for (const auto& [id, count] : visits_) {
    EXPECT_GE(count, 2) << id;
    EXPECT_LE(count, 3) << id;
  }
  EXPECT_LE(most_in_a_turn_, Sweep::kPortion);
}

TEST_F(SweepTest, TakesLargerPortionsWhenThePeriodIsShortForSoMany) {
  const auto sweep = Over(10'000, milliseconds(100));
  sweep->Start();
  ASSERT_TRUE(testing::RunUntil(*loop_, [this] { return rounds_ == 2; }));
  EXPECT_EQ(visits_.size(), 10'000U);
  EXPECT_LE(most_in_a_turn_, 2000U) << "ten portions, and a late timer";
}

TEST_F(SweepTest, GoesOnWhenThereWasNothing) {
  const auto sweep = Over(0, milliseconds(20));
  sweep->Start();
  ASSERT_TRUE(testing::RunUntil(*loop_, [this] { return rounds_ == 3; }));
  EXPECT_TRUE(visits_.empty());
}

}  // namespace
}  // namespace postern::session
