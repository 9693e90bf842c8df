// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "tests/fakes/fake_clock.h"

namespace postern::base {
namespace {

TEST(SystemClockTest, ReadsTheWallClock) {
  const absl::Time before = absl::Now();
  const absl::Time now = Clock::System().Now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, absl::Now());
}

TEST(SystemClockTest, NeverGoesBackSinceBoot) {
  absl::Duration last = Clock::System().SinceBoot();
  EXPECT_GT(last, absl::ZeroDuration());
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration next = Clock::System().SinceBoot();
    ASSERT_GE(next, last);
    last = next;
  }
}

TEST(FakeClockTest, MovesBothClocksWhenTimeGoesBy) {
  fakes::FakeClock clock;
  const absl::Time now = clock.Now();
  const absl::Duration boot = clock.SinceBoot();
  clock.Advance(absl::Minutes(3));
  EXPECT_EQ(clock.Now() - now, absl::Minutes(3));
  EXPECT_EQ(clock.SinceBoot() - boot, absl::Minutes(3));
}

TEST(SystemClockTest, IsNeverAwakeForLongerThanItRan) {
  const absl::Duration awake = Clock::System().Awake();
  EXPECT_GT(awake, absl::ZeroDuration());
  EXPECT_LE(awake, Clock::System().SinceBoot());
}

TEST(FakeClockTest, SleepsWithoutBeingAwake) {
  fakes::FakeClock clock;
  const absl::Duration boot = clock.SinceBoot();
  const absl::Duration awake = clock.Awake();
  clock.Sleep(absl::Hours(8));
  EXPECT_EQ(clock.SinceBoot() - boot, absl::Hours(8));
  EXPECT_EQ(clock.Awake(), awake);
  clock.Advance(absl::Minutes(3));
  EXPECT_EQ(clock.Awake() - awake, absl::Minutes(3));
}

TEST(FakeClockTest, KeepsTheBootClockWhenTheWallClockIsSet) {
  fakes::FakeClock clock;
  const absl::Duration boot = clock.SinceBoot();
  clock.SetNow(absl::FromUnixSeconds(1));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(1));
  EXPECT_EQ(clock.SinceBoot(), boot);
}

}  // namespace
}  // namespace postern::base
