// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/memory_keeper.h"

#include <gtest/gtest.h>

namespace postern::process {
namespace {

using Action = MemoryKeeper::Action;

TEST(MemoryKeeperTest, GivesTheStartsMemoryBackOnceWhenItIsReady) {
  MemoryKeeper keeper;
  EXPECT_EQ(keeper.OnTick(false, 0), Action::kNothing);
  EXPECT_EQ(keeper.OnTick(true, 0), Action::kGiveBackStart);
  EXPECT_EQ(keeper.OnTick(true, 0), Action::kNothing);
  EXPECT_EQ(keeper.OnTick(false, 0), Action::kNothing);
  EXPECT_EQ(keeper.OnTick(true, 0), Action::kNothing);
}

TEST(MemoryKeeperTest, GivesMemoryBackWhenHalfOfManyConnectionsHaveEnded) {
  MemoryKeeper keeper;
  keeper.OnTick(true, 0);
  EXPECT_EQ(keeper.OnTick(true, 10'000), Action::kNothing);
  EXPECT_EQ(keeper.OnTick(true, 5'001), Action::kNothing);
  EXPECT_EQ(keeper.OnTick(true, 5'000), Action::kGiveBackFree);
  // Not again for the same ones, but for half of those that are left.
  EXPECT_EQ(keeper.OnTick(true, 4'000), Action::kNothing);
  EXPECT_EQ(keeper.OnTick(true, 2'500), Action::kGiveBackFree);
}

TEST(MemoryKeeperTest, LetsFewConnectionsComeAndGo) {
  MemoryKeeper keeper;
  keeper.OnTick(true, 0);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(keeper.OnTick(true, 255), Action::kNothing);
    EXPECT_EQ(keeper.OnTick(true, 0), Action::kNothing);
  }
}

TEST(MemoryKeeperTest, CountsConnectionsThatWereThereBeforeItWasReady) {
  MemoryKeeper keeper;
  EXPECT_EQ(keeper.OnTick(true, 1'000), Action::kGiveBackStart);
  EXPECT_EQ(keeper.OnTick(true, 0), Action::kGiveBackFree);
}

}  // namespace
}  // namespace postern::process
