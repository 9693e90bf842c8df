// SPDX-License-Identifier: Apache-2.0
#include "control/attest/challenge_table.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/x509/member_proof.h"
#include "control/attest/refusal.h"
#include "tests/fakes/fake_clock.h"

namespace postern::attest {
namespace {

class ChallengeTableTest : public ::testing::Test {
 protected:
  void ExpectRefused(const std::string& connection, std::string_view challenge) {
    const absl::Status used = table_.Use(connection, challenge);
    ASSERT_FALSE(used.ok());
    EXPECT_EQ(ReasonOf(used), RefusalReason::kBadChallenge) << used;
    EXPECT_TRUE(absl::IsAborted(used)) << used;
  }

  fakes::FakeClock clock_;
  ChallengeTable table_{clock_};
};

TEST_F(ChallengeTableTest, AChallengeIsFreshAndGoodOnce) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string challenge = *table_.Make("a");
    EXPECT_EQ(challenge.size(), x509::kChallengeBytes);
    EXPECT_TRUE(seen.insert(challenge).second);
  }
  const std::string challenge = *table_.Make("a");
  EXPECT_TRUE(table_.Use("a", challenge).ok());
  ExpectRefused("a", challenge);
  EXPECT_EQ(table_.open(), 0U);
}

TEST_F(ChallengeTableTest, AChallengeBelongsToItsConnection) {
  const std::string of_a = *table_.Make("a");
  const std::string of_b = *table_.Make("b");
  ExpectRefused("c", of_a);
  ExpectRefused("b", of_a);
  ExpectRefused("b", of_b);  // its one attempt is over
  EXPECT_TRUE(table_.Use("a", of_a).ok()) << "what others try costs a connection nothing";
}

TEST_F(ChallengeTableTest, ANewChallengeTakesThePlaceOfTheFormer) {
  const std::string first = *table_.Make("a");
  const std::string second = *table_.Make("a");
  EXPECT_EQ(table_.open(), 1U);
  EXPECT_TRUE(table_.Use("a", second).ok());
  ExpectRefused("a", first);
}

TEST_F(ChallengeTableTest, AChallengeLivesForAMinute) {
  const std::string challenge = *table_.Make("a");
  clock_.Advance(ChallengeTable::kLifetime - absl::Milliseconds(1));
  EXPECT_TRUE(table_.Use("a", challenge).ok());
  const std::string late = *table_.Make("a");
  clock_.Advance(ChallengeTable::kLifetime);
  const absl::Status used = table_.Use("a", late);
  EXPECT_NE(used.message().find("expired"), absl::string_view::npos) << used;
  ExpectRefused("a", late);
}

TEST_F(ChallengeTableTest, RefusesWhatIsNoChallenge) {
  for (const std::string& wrong :
       {std::string(), std::string(31, 'x'), std::string(32, '\0'), std::string(100000, 'x')}) {
    ASSERT_TRUE(table_.Make("a").ok());
    ExpectRefused("a", wrong);
  }
}

TEST_F(ChallengeTableTest, AFloodTakesBoundedMemoryAndThePlacesOfTheOldest) {
  const std::string oldest = *table_.Make("oldest");
  const std::string old = *table_.Make("old");
  for (size_t i = 0; i < ChallengeTable::kMaxOpen - 1; ++i) {
    ASSERT_TRUE(table_.Make("flood" + std::to_string(i)).ok());
  }
  EXPECT_EQ(table_.open(), ChallengeTable::kMaxOpen);
  ExpectRefused("oldest", oldest);
  EXPECT_TRUE(table_.Use("old", old).ok());
}

TEST_F(ChallengeTableTest, ForgetsWhatWasNeverAnswered) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(table_.Make(std::to_string(i)).ok());
  }
  clock_.Advance(2 * ChallengeTable::kLifetime);
  ASSERT_TRUE(table_.Make("a").ok());
  EXPECT_EQ(table_.open(), 1U);
}

TEST_F(ChallengeTableTest, OfManyThreadsWithOneChallengeOneIsFirst) {
  const std::string challenge = *table_.Make("a");
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] { good += table_.Use("a", challenge).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(good, 1);
}

}  // namespace
}  // namespace postern::attest
