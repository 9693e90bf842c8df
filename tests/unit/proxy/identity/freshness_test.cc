// SPDX-License-Identifier: Apache-2.0
// What the issuer's messages say about time: how fresh each kind of thing is, how far this clock is
// off, and the watch over this machine's clocks.
#include "proxy/identity/freshness.h"

#include <gtest/gtest.h>

#include <vector>

#include "proxy/identity/clock_watch.h"
#include "proxy/identity/trust_clock.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/run_loop.h"

namespace postern::identity {
namespace {

constexpr absl::Duration At(int seconds) {
  return absl::Seconds(seconds);
}

TEST(FreshnessTest, EachMessageConfirmsEverything) {
  Freshness freshness;
  EXPECT_EQ(freshness.AllConfirmed(), std::nullopt);
  freshness.OnHeard(At(10));
  EXPECT_EQ(freshness.AllConfirmed(), At(10));
  freshness.OnHeard(At(25));
  EXPECT_EQ(freshness.AllConfirmed(), At(25));
}

TEST(FreshnessTest, ACertificateConfirmsTheBundlesAlone) {
  Freshness freshness;
  freshness.OnCertificate(At(10));
  EXPECT_EQ(freshness.confirmed()[0], At(10));
  EXPECT_EQ(freshness.AllConfirmed(), std::nullopt);
  freshness.Restore(At(3));
  freshness.OnCertificate(At(12));
  EXPECT_EQ(freshness.AllConfirmed(), At(3));
}

TEST(FreshnessTest, WhatWasRefusedAgesUntilSomethingOfItsKindIsApplied) {
  Freshness freshness;
  freshness.OnHeard(At(10));
  freshness.OnApplied(TrustKind::kPolicy, false, At(10));
  freshness.OnHeard(At(50));
  EXPECT_EQ(freshness.confirmed()[0], At(50));
  EXPECT_EQ(freshness.confirmed()[1], At(10));
  EXPECT_EQ(freshness.AllConfirmed(), At(10));
  freshness.OnApplied(TrustKind::kPolicy, true, At(60));
  EXPECT_EQ(freshness.confirmed()[1], At(60));
  freshness.OnHeard(At(70));
  EXPECT_EQ(freshness.AllConfirmed(), At(70));
}

TEST(TrustClockTest, IsNeverStaleUnlessToldWhenThatIs) {
  TrustClock clock;
  EXPECT_FALSE(clock.IsStale(absl::Hours(1000)));
  clock.SetConfirmed(At(1));
  EXPECT_FALSE(clock.IsStale(absl::Hours(1000)));
}

TEST(TrustClockTest, IsStaleAfterItsTimeAndBeforeAnythingWasConfirmed) {
  TrustClock clock(absl::Minutes(10));
  EXPECT_TRUE(clock.IsStale(At(1)));
  EXPECT_NE(clock.StaleText(At(1)).find("yet, and --max-stale is 10m"), std::string::npos)
      << clock.StaleText(At(1));
  clock.SetConfirmed(At(100));
  EXPECT_FALSE(clock.IsStale(At(100)));
  EXPECT_FALSE(clock.IsStale(At(100) + absl::Minutes(10)));
  EXPECT_TRUE(clock.IsStale(At(101) + absl::Minutes(10)));
  EXPECT_NE(clock.StaleText(At(100) + absl::Minutes(12)).find("for 12 min"), std::string::npos);
  clock.SetConfirmed(At(5000));
  EXPECT_FALSE(clock.IsStale(At(5001)));
}

TEST(TrustClockTest, SaysWhoseClockIsAheadInWordsForAPerson) {
  TrustClock clock;
  EXPECT_EQ(clock.SkewRemark(), "");
  const std::vector<std::pair<absl::Duration, std::string>> expected = {
      {absl::Seconds(7 * 60 + 20), "; this clock is 7 min ahead of the issuer's"},
      {-absl::Seconds(600), "; this clock is 10 min behind the issuer's"},
      {-absl::Milliseconds(599'998), "; this clock is 10 min behind the issuer's"},
      {absl::Milliseconds(-1999), "; this clock agrees with the issuer's"},
      {absl::Seconds(95), "; this clock is 95 s ahead of the issuer's"},
      {absl::Hours(3), "; this clock is 3 h ahead of the issuer's"},
      {-absl::Hours(49), "; this clock is 2 d behind the issuer's"},
  };
  for (const auto& [skew, text] : expected) {
    clock.SetSkew(skew);
    EXPECT_EQ(clock.SkewRemark(), text);
  }
  clock.SetSkew(std::nullopt);
  EXPECT_EQ(clock.skew(), std::nullopt);
}

class ClockWatchTest : public ::testing::Test {
 protected:
  ClockWatchTest()
      : loop_(net::Loop::Create().value()),
        watch_(*loop_, clock_,
               [this](const ClockWatch::Break& found) { breaks_.push_back(found); }) {
    watch_.Start();
  }
  bool Says(size_t count) {
    return testing::RunUntil(*loop_, [&] { return breaks_.size() >= count; });
  }
  void Look() { testing::RunFor(*loop_, ClockWatch::kLook + std::chrono::milliseconds(200)); }

  fakes::FakeClock clock_;
  std::unique_ptr<net::Loop> loop_;
  std::vector<ClockWatch::Break> breaks_;
  ClockWatch watch_;
};

TEST_F(ClockWatchTest, SaysWhatHappenedOnceAndNothingOfTimeThatGoesBy) {
  clock_.Advance(absl::Hours(5));  // the loop was busy, or stopped with SIGSTOP
  Look();
  EXPECT_TRUE(breaks_.empty());
  clock_.Sleep(absl::Hours(8));
  ASSERT_TRUE(Says(1));
  EXPECT_EQ(breaks_[0].slept, absl::Hours(8));
  EXPECT_EQ(breaks_[0].set, absl::ZeroDuration());
  clock_.SetNow(clock_.Now() - absl::Minutes(7));
  ASSERT_TRUE(Says(2));
  EXPECT_EQ(breaks_[1].set, -absl::Minutes(7));
  EXPECT_EQ(breaks_[1].slept, absl::ZeroDuration());
  clock_.SetNow(clock_.Now() + absl::Hours(2));
  ASSERT_TRUE(Says(3));
  EXPECT_EQ(breaks_[2].set, absl::Hours(2));
}

TEST_F(ClockWatchTest, PassesOverWhatIsNotNotable) {
  clock_.SetNow(clock_.Now() + absl::Seconds(4));
  clock_.Sleep(absl::Seconds(4));
  Look();
  EXPECT_TRUE(breaks_.empty());
}

}  // namespace
}  // namespace postern::identity
