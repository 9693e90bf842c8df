// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/reauth_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace postern::session {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'767'225'600);

// As our issuers make them: backdated by two minutes.
x509::VerifiedPeer Peer(absl::Duration ttl) {
  return {x509::SpiffeId::Parse("spiffe://example.org/web").value(),
          kNow - absl::Minutes(2),
          kNow + ttl,
          "01",
          {},
          {}};
}

TEST(ReauthScheduleTest, AsksWhenTheClientHasRenewedAndThereIsTimeLeft) {
  for (const absl::Duration ttl :
       {absl::Seconds(10), absl::Minutes(10), absl::Hours(1), absl::Hours(24)}) {
    absl::Time earliest = absl::InfiniteFuture();
    absl::Time latest = absl::InfinitePast();
    for (uint64_t id = 1; id <= 1000; ++id) {
      const absl::Time ask = FirstAsk(Peer(ttl), id);
      earliest = std::min(earliest, ask);
      latest = std::max(latest, ask);
    }
    EXPECT_GE(earliest, kNow + 0.69 * ttl);
    EXPECT_LE(latest, kNow + 0.81 * ttl);
    EXPECT_GT(latest - earliest, 0.09 * ttl);  // spread, also over numbers that follow each other
  }
}

TEST(ReauthScheduleTest, ACertificateThatIsNotBackdatedIsAskedForBeforeItsEnd) {
  x509::VerifiedPeer peer = Peer(absl::Seconds(60));
  peer.not_before = kNow;
  EXPECT_GT(FirstAsk(peer, 7), kNow + absl::Seconds(40));
  EXPECT_LT(FirstAsk(peer, 7), kNow + absl::Seconds(50));
}

TEST(ReauthScheduleTest, AsksAgainSoonerTowardsTheEndAndNeverInAHurry) {
  EXPECT_EQ(AskAgainAfter(absl::Hours(5)), absl::Minutes(1));
  EXPECT_EQ(AskAgainAfter(absl::Seconds(40)), absl::Seconds(10));
  EXPECT_EQ(AskAgainAfter(absl::Seconds(2)), absl::Seconds(1));
  EXPECT_EQ(AskAgainAfter(absl::ZeroDuration()), kPastExpiryPeriod);
  EXPECT_EQ(AskAgainAfter(absl::Seconds(-100)), kPastExpiryPeriod);
}

TEST(ReauthScheduleTest, LooksForAnAnswerAtOnceAndThenLessOften) {
  EXPECT_EQ(LookAgainAfter(0), absl::Milliseconds(100));
  EXPECT_EQ(LookAgainAfter(1), absl::Milliseconds(200));
  EXPECT_EQ(LookAgainAfter(200), LookAgainAfter(5));
  EXPECT_LE(LookAgainAfter(200), absl::Seconds(5));
}

}  // namespace
}  // namespace postern::session
