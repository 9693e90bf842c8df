// SPDX-License-Identifier: Apache-2.0
#include "common/x509/openssl_blocks.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

namespace postern::x509 {
namespace {

TEST(BlockListsTest, GivesABlockOfASizeAgain) {
  BlockLists lists;
  for (const size_t size : {size_t{1}, size_t{24}, size_t{25}, size_t{500}, size_t{1032}}) {
    void* const block = lists.Allocate(size);
    ASSERT_NE(block, nullptr);
    EXPECT_GE(malloc_usable_size(block), size);
    lists.Release(block);
    EXPECT_GE(lists.kept(), size);
    void* const again = lists.Allocate(size);
    EXPECT_EQ(again, block) << size;
    EXPECT_EQ(lists.kept(), 0U);
    std::free(again);  // it is malloc's
  }
}

TEST(BlockListsTest, LeavesLargeOnesAndNothingToMalloc) {
  BlockLists lists;
  lists.Release(lists.Allocate(BlockLists::kLargest + 16));  // the next of malloc's sizes
  lists.Release(lists.Allocate(1U << 20U));
  lists.Release(nullptr);
  EXPECT_EQ(lists.kept(), 0U);
  EXPECT_EQ(lists.Allocate(0), nullptr);
}

TEST(BlockListsTest, KeepsNoMoreThanItsBound) {
  BlockLists lists;
  std::vector<void*> blocks(2000);
  for (void*& block : blocks) {
    block = lists.Allocate(1000);
  }
  for (void* const block : blocks) {
    lists.Release(block);
    EXPECT_LE(lists.kept(), BlockLists::kMostKept);
  }
  EXPECT_GT(lists.kept(), BlockLists::kMostKept / 2);
}

TEST(BlockListsTest, KeepsNothingOnceItIsClosed) {
  BlockLists lists;
  void* const late = lists.Allocate(100);
  lists.Release(lists.Allocate(100));
  lists.Close();
  EXPECT_EQ(lists.kept(), 0U);
  lists.Release(late);
  EXPECT_EQ(lists.kept(), 0U);
  void* const after = lists.Allocate(100);
  EXPECT_NE(after, nullptr);
  lists.Release(after);
}

TEST(BlockListsTest, ResizesAsRealloc) {
  BlockLists lists;
  auto* text = static_cast<uint8_t*>(lists.Resize(nullptr, 10));
  std::fill_n(text, 10, uint8_t{7});
  for (const size_t size : {size_t{20}, size_t{200}, size_t{5000}, size_t{30}}) {
    text = static_cast<uint8_t*>(lists.Resize(text, size));
    ASSERT_NE(text, nullptr);
    EXPECT_TRUE(std::all_of(text, text + 10, [](uint8_t byte) { return byte == 7; })) << size;
  }
  EXPECT_EQ(lists.Resize(text, 0), nullptr);
}

// No two at once have the same bytes, whatever is freed, resized and taken again.
TEST(BlockListsTest, NeverGivesABlockTwice) {
  struct Held {
    uint8_t* at = nullptr;
    size_t size = 0;
    uint8_t mark = 0;
  };
  BlockLists lists;
  std::mt19937 random(1);
  std::vector<Held> held(300);
  for (int step = 0; step < 100'000; ++step) {
    Held& one = held[random() % held.size()];
    ASSERT_TRUE(
        std::all_of(one.at, one.at + one.size, [&](uint8_t byte) { return byte == one.mark; }));
    const size_t size = 1 + random() % 1200;
    if (random() % 4 == 0) {
      one.at = static_cast<uint8_t*>(lists.Resize(one.at, size));
    } else {
      lists.Release(one.at);
      one.at = static_cast<uint8_t*>(lists.Allocate(size));
    }
    ASSERT_NE(one.at, nullptr);
    one.size = size;
    one.mark = static_cast<uint8_t>(step);
    std::fill_n(one.at, size, one.mark);
  }
  for (const Held& one : held) {
    lists.Release(one.at);
  }
}

}  // namespace
}  // namespace postern::x509
