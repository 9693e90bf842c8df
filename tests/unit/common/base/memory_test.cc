// SPDX-License-Identifier: Apache-2.0
#include "common/base/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace postern::base {
namespace {

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

// Bytes that this process has mapped now, of files alone when asked.
uint64_t Resident(bool of_files) {
  std::ifstream status("/proc/self/status");
  const std::string wanted = of_files ? "RssFile:" : "RssAnon:";
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(wanted)) {
      return std::stoull(line.substr(wanted.size())) * 1024;
    }
  }
  return 0;
}

TEST(MemoryTest, GivesBackWhatIsFreeBetweenWhatIsNot) {
  constexpr size_t kPieces = 2000;
  constexpr size_t kBytes = 16'000;
  std::vector<std::unique_ptr<char[]>> pieces;
  for (size_t i = 0; i < kPieces; ++i) {
    pieces.push_back(std::make_unique<char[]>(kBytes));  // written: zeroes
  }
  for (size_t i = 0; i < kPieces; ++i) {
    if (i % 16 != 15) {
      pieces[i].reset();
    }
  }
  const uint64_t before = Resident(false);
  GiveBackFreeMemory();
  EXPECT_LT(Resident(false) + kPieces * kBytes / 2, before);
}

TEST(MemoryTest, LetsGoOfPagesThatOnlyTheStartNeeded) {
  const uint64_t before = Resident(true);
  GiveBackStartMemory();
  EXPECT_LT(Resident(true), before);
}

#endif

// Data that was relocated or written must be what it was: a lost page would crash in here.
TEST(MemoryTest, GoesOnAfterwards) {
  static std::string written = "relocated";
  written = "written again";  // each time, also where the cases are repeated
  for (int round = 0; round < 3; ++round) {
    GiveBackStartMemory();
    const std::unique_ptr<std::istream> relocated =
        std::make_unique<std::ifstream>("/proc/self/maps");
    std::string line;
    EXPECT_TRUE(std::getline(*relocated, line));
  }
  EXPECT_EQ(written, "written again");
}

}  // namespace
}  // namespace postern::base
