// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/command.h"

namespace postern::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

CommandLine Split(std::vector<const char*> words) {
  words.insert(words.begin(), "postern");
  return SplitCommandLine(static_cast<int>(words.size()), words.data());
}

TEST(CommandLineTest, LeavesOtherNounsAlone) {
  const CommandLine line = Split({"status", "--admin", "127.0.0.1:1", "--", "run"});
  EXPECT_THAT(line.words, ElementsAre("postern", "status", "--admin", "127.0.0.1:1", "--", "run"));
  EXPECT_THAT(line.proxy_words, IsEmpty());
  EXPECT_THAT(line.command, IsEmpty());
}

TEST(CommandLineTest, TellsTheFlagsOfRunFromTheProxysAndTheCommand) {
  const CommandLine line = Split({"run", "--issuer", "status", "--proxy-log", "a.log", "--tunnel=x",
                                  "--ready-timeout=5s", "--log-level", "debug", "--", "curl",
                                  "--proxy", "p", "--", "x"});
  EXPECT_THAT(line.words,
              ElementsAre("postern", "run", "--proxy-log", "a.log", "--ready-timeout=5s"));
  EXPECT_THAT(line.proxy_words,
              ElementsAre("--issuer", "status", "--tunnel=x", "--log-level", "debug"));
  EXPECT_THAT(line.command, ElementsAre("curl", "--proxy", "p", "--", "x"));
}

TEST(CommandLineTest, FindsRunBehindTheFlagsOfAllCommands) {
  const CommandLine line = Split({"--log-level", "run", "run", "--svid", "f", "--", "true"});
  EXPECT_THAT(line.words, ElementsAre("postern", "--log-level", "run", "run"));
  EXPECT_THAT(line.proxy_words, ElementsAre("--svid", "f"));
  EXPECT_THAT(line.command, ElementsAre("true"));
}

TEST(CommandLineTest, KeepsALineWithoutACommandForTheHelp) {
  const CommandLine line = Split({"run", "--help"});
  EXPECT_THAT(line.words, ElementsAre("postern", "run", "--help"));
  EXPECT_THAT(line.command, IsEmpty());
}

}  // namespace
}  // namespace postern::cli
