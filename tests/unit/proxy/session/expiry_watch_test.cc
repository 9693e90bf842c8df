// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/expiry_watch.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "tests/fakes/fake_clock.h"
#include "tests/testing/run_loop.h"

namespace postern::session {
namespace {

class ExpiryWatchTest : public ::testing::Test {
 protected:
  int64_t In(absl::Duration from_now) const { return absl::ToUnixMillis(clock_.Now() + from_now); }
  bool Await(size_t visits) {
    return testing::RunUntil(*loop_, [this, visits] { return visited_.size() >= visits; });
  }

  std::unique_ptr<net::Loop> loop_ = net::Loop::Create().value();
  fakes::FakeClock clock_;
  std::vector<uint64_t> visited_;
  ExpiryWatch watch_{*loop_, clock_, [this](uint64_t id) { visited_.push_back(id); }};
};

TEST_F(ExpiryWatchTest, VisitsInTheOrderOfTimeAndOnce) {
  watch_.Move(1, 0, In(absl::Milliseconds(-1)));
  watch_.Move(2, 0, In(absl::Milliseconds(-3)));
  watch_.Move(3, 0, In(absl::Hours(1)));
  ASSERT_TRUE(Await(2));
  EXPECT_EQ(visited_, (std::vector<uint64_t>{2, 1}));
  EXPECT_EQ(watch_.size(), 1U);
}

TEST_F(ExpiryWatchTest, ForgetsAndMovesEntries) {
  const int64_t soon = In(absl::Milliseconds(-1));
  const int64_t late = In(absl::Hours(1));
  watch_.Move(1, 0, soon);
  watch_.Move(1, soon, 0);
  watch_.Move(2, 0, soon);
  watch_.Move(2, soon, late);
  watch_.Move(3, 0, late);
  watch_.Move(3, late, soon);
  ASSERT_TRUE(Await(1));
  EXPECT_EQ(visited_, std::vector<uint64_t>{3});
  EXPECT_EQ(watch_.size(), 1U);
  watch_.Move(2, late, 0);
  EXPECT_EQ(watch_.size(), 0U);
}

TEST_F(ExpiryWatchTest, NoticesAJumpOfTheClockWithinASecond) {
  watch_.Move(1, 0, In(absl::Hours(5)));
  clock_.Advance(absl::Hours(6));
  EXPECT_TRUE(Await(1));
}

TEST_F(ExpiryWatchTest, VisitsManyThatAreDueAtOnceEachOnce) {
  for (uint64_t id = 1; id <= 1000; ++id) {
    watch_.Move(id, 0, In(absl::Milliseconds(-1)));
  }
  ASSERT_TRUE(Await(1000));
  std::map<uint64_t, int> times;
  for (const uint64_t id : visited_) {
    ++times[id];
  }
  EXPECT_EQ(times.size(), 1000U);
  EXPECT_EQ(visited_.size(), 1000U);
}

}  // namespace
}  // namespace postern::session
