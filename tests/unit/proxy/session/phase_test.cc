// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/phase.h"

#include <gtest/gtest.h>

#include <queue>
#include <set>

namespace postern::session {
namespace {

using base::Direction;

std::set<Phase> Reachable(const PhaseTable& table) {
  std::set<Phase> seen{Phase::kAccept};
  std::queue<Phase> todo;
  todo.push(Phase::kAccept);
  while (!todo.empty()) {
    const PhaseRule& rule = table[static_cast<size_t>(todo.front())];
    todo.pop();
    for (size_t i = 0; i < kPhaseCount; ++i) {
      const auto next = static_cast<Phase>(i);
      if (rule.Allows(next) && seen.insert(next).second) {
        todo.push(next);
      }
    }
  }
  return seen;
}

class PhaseTableTest : public ::testing::TestWithParam<Direction> {};

TEST_P(PhaseTableTest, HasARuleForExactlyThePhasesThatCanBeReached) {
  const PhaseTable& table = PhasesOf(GetParam());
  const std::set<Phase> reachable = Reachable(table);
  for (size_t i = 0; i < kPhaseCount; ++i) {
    EXPECT_EQ(table[i].known, reachable.contains(static_cast<Phase>(i)))
        << Token(static_cast<Phase>(i));
  }
}

TEST_P(PhaseTableTest, LetsEveryPhaseButTheLastEnd) {
  const PhaseTable& table = PhasesOf(GetParam());
  for (const Phase phase : Reachable(table)) {
    if (phase != Phase::kClosed) {
      EXPECT_TRUE(table[static_cast<size_t>(phase)].Allows(Phase::kClosed)) << Token(phase);
    }
  }
}

TEST_P(PhaseTableTest, GivesEveryPhaseThatWaitsADeadlineWithItsOwnReason) {
  const PhaseTable& table = PhasesOf(GetParam());
  for (const Phase phase : Reachable(table)) {
    const PhaseRule& rule = table[static_cast<size_t>(phase)];
    const bool instant = phase == Phase::kAccept || phase == Phase::kOriginalDestination ||
                         phase == Phase::kIdentify || phase == Phase::kAuthorize ||
                         phase == Phase::kClosed;
    EXPECT_EQ(rule.deadline == Deadline::kInstant, instant) << Token(phase);
    if (!instant && phase != Phase::kLinger) {
      EXPECT_NE(rule.on_deadline, base::CloseReason::kInternal) << Token(phase);
    }
  }
}

TEST_P(PhaseTableTest, ReachesTheRelayOnlyThroughAJudgementOrAPlaintextConnect) {
  const PhaseTable& table = PhasesOf(GetParam());
  for (size_t i = 0; i < kPhaseCount; ++i) {
    if (table[i].Allows(Phase::kRelay)) {
      const auto from = static_cast<Phase>(i);
      EXPECT_TRUE(from == Phase::kAuthorize || from == Phase::kConnect ||
                  from == Phase::kServerFirst || from == Phase::kServerHeld ||
                  from == Phase::kSniff)
          << Token(from);
    }
  }
  EXPECT_FALSE(table[static_cast<size_t>(Phase::kHandshake)].Allows(Phase::kConnect));
  EXPECT_FALSE(table[static_cast<size_t>(Phase::kIdentify)].Allows(Phase::kRelay));
  // After a handshake that failed only another handshake follows.
  EXPECT_FALSE(table[static_cast<size_t>(Phase::kReconnect)].Allows(Phase::kRelay));
  EXPECT_FALSE(table[static_cast<size_t>(Phase::kReconnect)].Allows(Phase::kConnect));
}

INSTANTIATE_TEST_SUITE_P(Directions, PhaseTableTest,
                         ::testing::Values(Direction::kInbound, Direction::kOutbound));

TEST(PhaseTest, HasATokenForEachPhase) {
  std::set<std::string_view> tokens;
  for (size_t i = 0; i < kPhaseCount; ++i) {
    tokens.insert(Token(static_cast<Phase>(i)));
  }
  EXPECT_EQ(tokens.size(), kPhaseCount);
  EXPECT_FALSE(tokens.contains(""));
}

}  // namespace
}  // namespace postern::session
