// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target on its seeds, on what libFuzzer has found beyond them (found/, where there is
// such a folder), and on mutations of both, in builds without libFuzzer.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "tests/fuzz/fuzz.h"

namespace postern {
namespace {

constexpr size_t kStepsPerSeed = 1500;
constexpr size_t kStepsPerFound = 100;  // they are many, and mutations already

void Feed(const std::string& input) {
  // A heap block of the exact size, so that AddressSanitizer sees the first byte too many.
  const std::vector<uint8_t> copy(input.begin(), input.end());
  ASSERT_EQ(LLVMFuzzerTestOneInput(copy.data(), copy.size()), 0);
}

std::vector<std::string> FilesOf(const std::filesystem::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(base::ReadFile(entry.path().string()).value());
  }
  std::sort(files.begin(), files.end());  // the order of a directory is nobody's promise
  return files;
}

std::vector<std::string> Seeds() {
  return FilesOf(std::filesystem::path(POSTERN_FUZZ_TARGET) / "corpus");
}

std::vector<std::string> Found() {
  const std::filesystem::path folder = std::filesystem::path(POSTERN_FUZZ_TARGET) / "found";
  return std::filesystem::exists(folder) ? FilesOf(folder) : std::vector<std::string>();
}

std::string Mutated(std::string input, std::mt19937& random) {
  const auto below = [&random](size_t limit) { return random() % std::max<size_t>(limit, 1); };
  for (size_t edits = 1 + below(4); edits > 0 && !input.empty(); --edits) {
    const size_t at = below(input.size());
    switch (below(4)) {
      case 0:
        input[at] = static_cast<char>(random());
        break;
      case 1:
        input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 2:
        input.erase(at, 1 + below(8));
        break;
      default:
        input.insert(at, input.substr(below(input.size()), 1 + below(32)));
        break;
    }
  }
  return input;
}

TEST(FuzzReplayTest, HasSeeds) {
  EXPECT_FALSE(Seeds().empty());
}

TEST(FuzzReplayTest, SurvivesItsSeeds) {
  Feed("");
  for (const std::string& seed : Seeds()) {
    Feed(seed);
  }
}

TEST(FuzzReplayTest, SurvivesSeedsThatAreCutShort) {
  for (const std::string& seed : Seeds()) {
    const size_t step = std::max<size_t>(seed.size() / kStepsPerSeed, 1);
    for (size_t size = 0; size < seed.size(); size += step) {
      Feed(seed.substr(0, size));
    }
  }
}

TEST(FuzzReplayTest, SurvivesMutationsOfItsSeeds) {
  std::mt19937 random(20260101);  // the same ones in every run
  for (const std::string& seed : Seeds()) {
    for (size_t i = 0; i < kStepsPerSeed; ++i) {
      Feed(Mutated(seed, random));
    }
  }
}

TEST(FuzzReplayTest, SurvivesWhatWasFoundAndMutationsOfIt) {
  std::mt19937 random(20260102);
  for (const std::string& found : Found()) {
    Feed(found);
    for (size_t i = 0; i < kStepsPerFound; ++i) {
      Feed(Mutated(found, random));
    }
  }
}

}  // namespace
}  // namespace postern
