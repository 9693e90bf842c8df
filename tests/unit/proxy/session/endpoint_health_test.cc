// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/endpoint_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::session {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

net::SocketAddress At(int host) {
  return net::SocketAddress::Parse(base::StrCat("192.0.2.", host, ":80")).value();
}

class EndpointHealthTest : public ::testing::Test {
 protected:
  std::vector<size_t> Order(size_t most = 3) { return health_.Order(candidates_, most); }
  // How often each is the first choice.
  std::array<int, 3> Firsts(int times) {
    std::array<int, 3> counts{};
    for (int i = 0; i < times; ++i) {
      ++counts[Order().front()];
    }
    return counts;
  }
  uint64_t Failing() const {
    return metrics_.endpoints_failing_began.value() - metrics_.endpoints_failing_ended.value();
  }

  milliseconds now_{1000};
  telemetry::WorkerMetrics metrics_;
  EndpointHealth health_{[this] { return now_; }, metrics_, 7};
  std::vector<Candidate> candidates_ = {{At(1)}, {At(2)}, {At(3)}};
};

TEST_F(EndpointHealthTest, PicksEachOfThoseThatAreWell) {
  for (const int count : Firsts(300)) {
    EXPECT_GT(count, 50);
  }
}

TEST_F(EndpointHealthTest, TakesTheLessLoadedOfTwo) {
  const EndpointHealth::Use one(health_, At(1));
  const EndpointHealth::Use two(health_, At(2));
  const EndpointHealth::Use again(health_, At(2));
  const std::array<int, 3> firsts = Firsts(300);
  EXPECT_EQ(firsts[1], 0) << "whatever it is compared with has fewer";
  EXPECT_GT(firsts[2], firsts[0]) << "it wins against both others";
}

TEST_F(EndpointHealthTest, PutsTheOtherFamilyOfANameSecond) {
  candidates_[0].rank = 1;
  EXPECT_EQ(Firsts(100)[0], 0);
  EXPECT_EQ(Order().back(), 0U);
}

TEST_F(EndpointHealthTest, LeavesAloneWhatFailedAndForLongerEachTime) {
  for (const int pause : {1000, 2000, 4000, 8000, 16000, 30000, 30000}) {
    health_.Failed(At(1));
    now_ += milliseconds(pause - 1);
    EXPECT_EQ(Firsts(100)[0], 0) << pause;
    EXPECT_EQ(Order().back(), 0U) << "it is still there when all else fails";
    now_ += milliseconds(1);
    EXPECT_GT(Firsts(100)[0], 0) << pause;
  }
  EXPECT_EQ(Failing(), 1U);
  health_.Succeeded(At(1));
  EXPECT_EQ(Failing(), 0U);
  EXPECT_EQ(health_.size(), 0U);
  health_.Failed(At(1));
  now_ += milliseconds(1000);
  EXPECT_GT(Firsts(100)[0], 0) << "from the beginning";
}

TEST_F(EndpointHealthTest, LetsOneConnectionTryWhatIsDueAgain) {
  candidates_ = {{At(1)}, {At(2)}};
  health_.Failed(At(1));
  now_ += milliseconds(1000);
  EXPECT_EQ(Firsts(100)[0], 1);
}

TEST_F(EndpointHealthTest, TriesWhatIsDueFirstWhereNothingIsWell) {
  health_.Failed(At(2));
  health_.Failed(At(2));
  health_.Failed(At(1));
  now_ += milliseconds(10);
  health_.Failed(At(3));
  EXPECT_THAT(Order(), ElementsAre(0, 2, 1));
  EXPECT_THAT(Order(1), testing::SizeIs(1));
}

TEST_F(EndpointHealthTest, ForgetsWhatIsNotUsed) {
  {
    const EndpointHealth::Use use(health_, At(1));
    EXPECT_EQ(health_.size(), 1U);
  }
  EXPECT_EQ(health_.size(), 0U);
  health_.Failed(At(1));
  now_ += EndpointHealth::kForgetAfter;
  health_.Sweep();
  EXPECT_EQ(health_.size(), 1U);
  now_ += milliseconds(1);
  health_.Sweep();
  EXPECT_EQ(health_.size(), 0U);
  EXPECT_EQ(Failing(), 0U);
}

TEST_F(EndpointHealthTest, HoldsNoMoreThanItsLimit) {
  for (int i = 0; i < static_cast<int>(EndpointHealth::kMostEndpoints) + 50; ++i) {
    health_.Failed(
        {base::IpAddress::Parse(base::StrCat("10.0.", i / 250, ".", i % 250)).value(), 80});
    now_ += milliseconds(1);
  }
  EXPECT_EQ(health_.size(), EndpointHealth::kMostEndpoints);
  EXPECT_EQ(Failing(), EndpointHealth::kMostEndpoints);
}

TEST_F(EndpointHealthTest, AUseMovesWithItsOwner) {
  EndpointHealth::Use use(health_, At(1));
  use = EndpointHealth::Use(health_, At(2));
  EndpointHealth::Use moved(std::move(use));
  EXPECT_EQ(health_.size(), 1U);
}

}  // namespace
}  // namespace postern::session
