// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/rate_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

namespace postern::session {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kKey = 0x123456789abcdef0;
constexpr uint64_t kOther = 0xfedcba9876543210;

class RateTableTest : public ::testing::Test {
 protected:
  void Make(uint32_t per_second, uint32_t burst) {
    table_ = std::make_unique<RateTable>(per_second, burst);
  }
  // How many of `tries` are let through now.
  int Passed(int tries, uint64_t key = kKey) {
    int passed = 0;
    for (int i = 0; i < tries; ++i) {
      passed += table_->Take(key, now_) ? 1 : 0;
    }
    return passed;
  }

  std::unique_ptr<RateTable> table_;
  microseconds now_ = seconds(1000);
};

TEST_F(RateTableTest, LetsABurstThroughAndThenTheRate) {
  Make(100, 20);
  EXPECT_EQ(Passed(50), 20);
  for (int i = 0; i < 10; ++i) {
    now_ += milliseconds(10);
    EXPECT_EQ(Passed(5), 1) << "one every ten milliseconds";
  }
  now_ += milliseconds(50);
  EXPECT_EQ(Passed(50), 5);
  now_ += seconds(60);
  EXPECT_EQ(Passed(50), 20) << "never more than the burst";
}

TEST_F(RateTableTest, RefusalsTakeNothing) {
  Make(10, 1);
  EXPECT_EQ(Passed(1), 1);
  for (int i = 0; i < 99; ++i) {
    now_ += milliseconds(1);
    EXPECT_EQ(Passed(1), 0);
  }
  now_ += milliseconds(1);
  EXPECT_EQ(Passed(1), 1) << "after a tenth of a second, however often it was tried";
}

TEST_F(RateTableTest, CountsEachKeyByItself) {
  Make(10, 10);
  EXPECT_EQ(Passed(100), 10);
  EXPECT_EQ(Passed(100, kOther), 10);
}

TEST_F(RateTableTest, AKeyThatIsOverItsRateIsNotForgottenForOthers) {
  Make(10, 100);
  EXPECT_EQ(Passed(200), 100);
  std::mt19937_64 random(1);
  for (int i = 0; i < 1'000'000; ++i) {
    table_->Take(random(), now_);
  }
  EXPECT_EQ(Passed(10), 0);
}

TEST_F(RateTableTest, GoesOnWhenItsClockWraps) {
  Make(100, 20);
  now_ = microseconds((int64_t{1} << 36) - 1000);
  EXPECT_EQ(Passed(50), 20);
  now_ += milliseconds(2);
  EXPECT_EQ(Passed(50), 0);
  now_ += milliseconds(8);
  EXPECT_EQ(Passed(50), 1);
}

TEST_F(RateTableTest, ABucketOfLongAgoIsFull) {
  Make(100, 20);
  EXPECT_EQ(Passed(50), 20);
  for (const auto away : {seconds(3600), seconds(36'000), seconds(60'000)}) {
    now_ += away;
    EXPECT_EQ(Passed(50), 20);
  }
}

TEST_F(RateTableTest, TakesTheSmallestAndTheLargestRate) {
  Make(1, 1);
  EXPECT_EQ(Passed(5), 1);
  now_ += milliseconds(999);
  EXPECT_EQ(Passed(5), 0);
  now_ += milliseconds(1);
  EXPECT_EQ(Passed(5), 1);
  Make(100'000, 200'000);
  EXPECT_EQ(Passed(300'000), 200'000);
}

}  // namespace
}  // namespace postern::session
