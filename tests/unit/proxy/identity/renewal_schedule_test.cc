// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/renewal_schedule.h"

#include <gtest/gtest.h>

#include "proxy/identity/backoff.h"

namespace postern::identity {
namespace {

RandomFraction Always(double fraction) {
  return [fraction] { return fraction; };
}

constexpr double kAlmostOne = 0.999999;
const absl::Duration kNow = absl::Seconds(5000);

TEST(BackoffTest, DoublesFromOneSecondToItsCap) {
  Backoff backoff(Always(kAlmostOne));
  for (const int expected : {1, 2, 4, 8, 16, 32, 60, 60}) {
    EXPECT_NEAR(absl::ToDoubleSeconds(backoff.Next()), expected, 0.01);
  }
}

TEST(BackoffTest, WaitsAtLeastHalfOfIt) {
  Backoff backoff(Always(0));
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(500));
  EXPECT_EQ(backoff.Next(), absl::Seconds(1));
}

TEST(BackoffTest, BeginsAnewAfterASuccess) {
  Backoff backoff(Always(0));
  backoff.Next();
  backoff.Next();
  backoff.Reset();
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(500));
}

TEST(BackoffTest, KeepsToTheCallersCapButNeverSpins) {
  Backoff backoff(Always(kAlmostOne));
  for (int i = 0; i < 40; ++i) {
    EXPECT_LE(backoff.Next(absl::Seconds(3)), absl::Seconds(3));
  }
  EXPECT_EQ(backoff.Next(absl::ZeroDuration()), Backoff::kShortest);
}

TEST(RenewalScheduleTest, AsksAtOnceWithoutACertificate) {
  const RenewalSchedule schedule(Always(0.5));
  EXPECT_LE(schedule.due(), kNow);
}

TEST(RenewalScheduleTest, RenewsAtHalfTheLifetimeGiveOrTakeATenth) {
  RenewalSchedule early(Always(0));
  early.OnCertificate(kNow, absl::ZeroDuration(), absl::Hours(1));
  EXPECT_NEAR(absl::ToDoubleMinutes(early.due() - kNow), 24, 0.01);
  RenewalSchedule late(Always(kAlmostOne));
  late.OnCertificate(kNow, absl::ZeroDuration(), absl::Hours(1));
  EXPECT_NEAR(absl::ToDoubleMinutes(late.due() - kNow), 36, 0.01);
}

TEST(RenewalScheduleTest, CountsTheAgeOfAKeptCertificate) {
  RenewalSchedule schedule(Always(0.5));
  schedule.OnCertificate(kNow, absl::Minutes(20), absl::Hours(1));
  EXPECT_NEAR(absl::ToDoubleMinutes(schedule.due() - kNow), 10, 0.01);
  schedule.OnCertificate(kNow, absl::Minutes(50), absl::Hours(1));
  EXPECT_EQ(schedule.due(), kNow);
}

// The lifetime is computed from what the issuer said and from what a file held.
TEST(RenewalScheduleTest, TakesALifetimeThatIsNoneForOneThatHasEnded) {
  RenewalSchedule schedule(Always(0.5));
  for (const absl::Duration lifetime :
       {absl::ZeroDuration(), absl::Seconds(-1), absl::Hours(-9), -absl::InfiniteDuration()}) {
    schedule.OnCertificate(kNow, absl::Minutes(1), lifetime);
    EXPECT_EQ(schedule.due(), kNow);
    schedule.OnFailure(kNow, absl::ZeroDuration());
    EXPECT_GT(schedule.due(), kNow);
    schedule.OnCertificate(kNow, absl::ZeroDuration(), lifetime);
    EXPECT_EQ(schedule.due(), kNow + RenewalSchedule::kSoonest) << "each success asks at once";
  }
}

TEST(RenewalScheduleTest, TakesAnAgeThatAWrongClockMadeForNone) {
  RenewalSchedule schedule(Always(0.5));
  schedule.OnCertificate(kNow, -absl::Hours(5), absl::Hours(1));
  EXPECT_NEAR(absl::ToDoubleMinutes(schedule.due() - kNow), 30, 0.01);
}

TEST(RenewalScheduleTest, RetriesWithinAQuarterOfWhatIsLeft) {
  RenewalSchedule schedule(Always(kAlmostOne));
  schedule.OnCertificate(kNow, absl::ZeroDuration(), absl::Seconds(10));
  absl::Duration now = schedule.due();
  while (now < kNow + absl::Seconds(9)) {
    schedule.OnFailure(now, absl::ZeroDuration());
    const absl::Duration left = kNow + absl::Seconds(10) - now;
    EXPECT_LE(schedule.due() - now, left / 4);
    EXPECT_GE(schedule.due() - now, Backoff::kShortest);
    now = schedule.due();
  }
}

TEST(RenewalScheduleTest, NeverWaitsLongerThanAMinute) {
  RenewalSchedule schedule(Always(kAlmostOne));
  schedule.OnCertificate(kNow, absl::ZeroDuration(), absl::Hours(24));
  for (int i = 0; i < 20; ++i) {
    schedule.OnFailure(kNow + absl::Hours(12), absl::ZeroDuration());
    EXPECT_LE(schedule.due(), kNow + absl::Hours(12) + absl::Seconds(60));
  }
}

TEST(RenewalScheduleTest, HurriesWithoutAUsableCertificate) {
  RenewalSchedule schedule(Always(kAlmostOne));
  for (int i = 0; i < 20; ++i) {
    schedule.OnFailure(kNow, absl::ZeroDuration());
    EXPECT_LE(schedule.due() - kNow, RenewalSchedule::kLongestWithoutCertificate);
  }
}

TEST(RenewalScheduleTest, ComesBackWhenTheIssuerAskedItTo) {
  RenewalSchedule schedule(Always(0));
  schedule.OnFailure(kNow, absl::Seconds(45));
  EXPECT_GE(schedule.due(), kNow + absl::Seconds(45));
  EXPECT_LE(schedule.due(), kNow + absl::Seconds(50));
  schedule.OnFailure(kNow, absl::Hours(100));
  EXPECT_LE(schedule.due(), kNow + RenewalSchedule::kLongestRetryAfter * 1.1);
}

// The issuer gave each of many its own time: who waits longer because it failed often before would
// come when nobody expects it.
TEST(RenewalScheduleTest, ComesBackWhenToldThoughItFailedOften) {
  RenewalSchedule schedule(Always(0));
  for (int i = 0; i < 10; ++i) {
    schedule.OnFailure(kNow, absl::ZeroDuration());
  }
  schedule.OnFailure(kNow, absl::Seconds(3));
  EXPECT_EQ(schedule.due(), kNow + absl::Seconds(3));
  schedule.OnFailure(kNow, absl::Nanoseconds(1));
  EXPECT_GE(schedule.due(), kNow + Backoff::kShortest);
}

TEST(RenewalScheduleTest, RenewsAtOnceAfterTheClocksWentApart) {
  RenewalSchedule schedule(Always(kAlmostOne));
  schedule.OnCertificate(kNow, absl::ZeroDuration(), absl::Hours(1));
  for (int i = 0; i < 10; ++i) {
    schedule.OnFailure(kNow, absl::ZeroDuration());
  }
  schedule.OnClockBreak(kNow, absl::Minutes(2));
  EXPECT_LE(schedule.due(), kNow + RenewalSchedule::kWakeSpread);
  // What is left is counted by the new time, and the back-off begins anew.
  schedule.OnFailure(kNow, absl::ZeroDuration());
  EXPECT_LE(schedule.due(), kNow + absl::Seconds(1));
  for (int i = 0; i < 10; ++i) {
    schedule.OnFailure(kNow + absl::Minutes(1), absl::ZeroDuration());
  }
  EXPECT_LE(schedule.due(), kNow + absl::Minutes(1) + absl::Seconds(15));
}

TEST(RenewalScheduleTest, HurriesWhenTheClockWasSetPastTheEnd) {
  RenewalSchedule schedule(Always(kAlmostOne));
  schedule.OnCertificate(kNow, absl::ZeroDuration(), absl::Hours(1));
  schedule.OnClockBreak(kNow, -absl::Hours(48));
  for (int i = 0; i < 10; ++i) {
    schedule.OnFailure(kNow, absl::ZeroDuration());
    EXPECT_LE(schedule.due() - kNow, RenewalSchedule::kLongestWithoutCertificate);
  }
}

TEST(RenewalScheduleTest, RenewsAtOnceWhenTold) {
  RenewalSchedule schedule(Always(0.5));
  schedule.OnCertificate(kNow, absl::ZeroDuration(), absl::Hours(1));
  schedule.RenewNow(kNow + absl::Seconds(3));
  EXPECT_EQ(schedule.due(), kNow + absl::Seconds(3));
}

}  // namespace
}  // namespace postern::identity
