// SPDX-License-Identifier: Apache-2.0
#include "control/service/come_back.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "control/service/rate_limiter.h"
#include "tests/fakes/fake_clock.h"

namespace postern::service {
namespace {

TEST(ComeBackTest, GivesEachAPlaceOfItsOwnAtThePaceThatItSaw) {
  const fakes::FakeClock clock;
  ComeBack come_back(clock);
  for (int i = 0; i < 500; ++i) {
    come_back.OnServed(absl::Milliseconds(64), 64);  // a thousand a second
  }
  EXPECT_NEAR(absl::ToDoubleMilliseconds(come_back.apart()), 1, 0.05);
  std::set<absl::Duration> places;
  for (int i = 0; i < 1000; ++i) {
    places.insert(come_back.Next());
  }
  EXPECT_EQ(places.size(), 1000U);
  EXPECT_EQ(*places.begin(), ComeBack::kSoonest);
  // A thousand of them at four fifths of the pace.
  EXPECT_NEAR(absl::ToDoubleSeconds(*places.rbegin() - *places.begin()), 1.25, 0.1);
}

TEST(ComeBackTest, PlacesThatHavePassedAreGivenAgain) {
  fakes::FakeClock clock;
  ComeBack come_back(clock);
  for (int i = 0; i < 1000; ++i) {
    come_back.Next();
  }
  EXPECT_GT(come_back.Next(), absl::Seconds(2));
  clock.Advance(absl::Minutes(1));
  EXPECT_EQ(come_back.Next(), ComeBack::kSoonest);
}

TEST(ComeBackTest, SendsNobodyAwayForLongerThanAMinuteHoweverManyCome) {
  const fakes::FakeClock clock;
  ComeBack come_back(clock);
  for (int i = 0; i < 200; ++i) {
    come_back.OnServed(absl::Seconds(30), 1);  // of a disk that hangs
  }
  std::set<absl::Duration> places;
  for (int i = 0; i < 20'000; ++i) {
    const absl::Duration place = come_back.Next();
    ASSERT_LE(place, ComeBack::kLongest);
    ASSERT_GE(place, ComeBack::kSoonest);
    places.insert(place);
  }
  EXPECT_GT(places.size(), 19'000U) << "those beyond come at different times as well";
}

TEST(RateLimiterTest, SendsThoseOfOneSourceBackOneAfterTheOther) {
  fakes::FakeClock clock;
  RateLimiter limiter(10, clock);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(limiter.Take("a"), absl::ZeroDuration());
  }
  std::vector<absl::Duration> places;
  for (int i = 0; i < 20; ++i) {
    places.push_back(limiter.Take("a"));
    EXPECT_NEAR(absl::ToDoubleSeconds(places.back()), 0.1 * (i + 1), 0.001);
  }
  EXPECT_EQ(limiter.Take("b"), absl::ZeroDuration());
  // Each comes when it was told to, and is let in.
  absl::Duration passed;
  for (const absl::Duration place : places) {
    clock.Advance(place - passed + absl::Microseconds(1));
    passed = place + absl::Microseconds(1);
    EXPECT_EQ(limiter.Take("a"), absl::ZeroDuration()) << place;
  }
}

TEST(RateLimiterTest, AFloodSendsItsSourceAwayForAMinuteAtMost) {
  fakes::FakeClock clock;
  RateLimiter limiter(2, clock);
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_LE(limiter.Take("a"), RateLimiter::kLongestWait);
  }
  clock.Advance(RateLimiter::kLongestWait + absl::Seconds(1));
  EXPECT_EQ(limiter.Take("a"), absl::ZeroDuration());
}

}  // namespace
}  // namespace postern::service
