// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/count_table.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace postern::session {
namespace {

std::vector<uint64_t> Hashes(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> hashes(count);
  for (uint64_t& hash : hashes) {
    hash = random();
  }
  return hashes;
}

TEST(CountTableTest, CountsEachKeyByItself) {
  CountTable table(100);
  const std::vector<uint64_t> keys = Hashes(100, 1);
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t n = 1; n <= i + 1; ++n) {
      EXPECT_EQ(table.Add(keys[i]), n);
    }
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(table.Count(keys[i]), i + 1);
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t n = 0; n <= i; ++n) {
      table.Remove(keys[i]);
    }
    EXPECT_EQ(table.Count(keys[i]), 0U);
  }
}

TEST(CountTableTest, HasAPlaceForAsManyKeysAsItIsMadeFor) {
  for (const size_t keys : {size_t{1}, size_t{1000}, size_t{100'000}}) {
    CountTable table(keys);
    for (const uint64_t hash : Hashes(keys, keys)) {
      ASSERT_EQ(table.Add(hash), 1U) << keys;
    }
  }
}

TEST(CountTableTest, ForgetsNoKeyForOthersHoweverManyThereAre) {
  CountTable table(64);
  const uint64_t held = Hashes(1, 7).front();
  for (int i = 0; i < 5; ++i) {
    table.Add(held);
  }
  size_t without_a_place = 0;
  for (const uint64_t hash : Hashes(100'000, 8)) {
    without_a_place += table.Add(hash) == 0 ? 1 : 0;
  }
  EXPECT_GE(without_a_place, 100'000 - table.places()) << "its memory is fixed";
  EXPECT_EQ(table.Count(held), 5U);
  EXPECT_EQ(table.Add(held), 6U);
}

TEST(CountTableTest, UsesAPlaceAgainOnceItsCountIsZero) {
  CountTable table(64);
  for (const uint64_t hash : Hashes(100'000, 9)) {
    ASSERT_EQ(table.Add(hash), 1U);
    table.Remove(hash);
  }
}

// Run with ThreadSanitizer as well.
TEST(CountTableTest, KeepsExactCountsWhileThreadsUseTheSameKeys) {
  CountTable table(64);
  const std::vector<uint64_t> keys = Hashes(16, 10);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 5000; ++round) {
        for (const uint64_t key : keys) {
          EXPECT_GE(table.Add(key), 1U);
        }
        for (const uint64_t key : keys) {
          table.Remove(key);
        }
      }
      table.Add(keys.front());
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(table.Count(keys.front()), 4U);
  for (size_t i = 1; i < keys.size(); ++i) {
    EXPECT_EQ(table.Count(keys[i]), 0U);
  }
}

}  // namespace
}  // namespace postern::session
