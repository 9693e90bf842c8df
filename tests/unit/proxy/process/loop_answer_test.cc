// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/loop_answer.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>

namespace postern::process {
namespace {

TEST(LoopAnswerTest, BringsWhatAnotherThreadSays) {
  std::thread other;
  const auto answer = AwaitAnswer<std::string>(std::chrono::seconds(30), [&other](auto tell) {
    other = std::thread([tell = std::move(tell)] { tell("yes"); });
  });
  other.join();
  EXPECT_EQ(answer, "yes");
}

TEST(LoopAnswerTest, DropsWhatComesTooLate) {
  std::function<void(std::string)> late;
  const auto answer = AwaitAnswer<std::string>(std::chrono::milliseconds(1),
                                               [&late](auto tell) { late = std::move(tell); });
  EXPECT_EQ(answer, std::nullopt);
  late("too late");  // whoever asked is gone
}

}  // namespace
}  // namespace postern::process
