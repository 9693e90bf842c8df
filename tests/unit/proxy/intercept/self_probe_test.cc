// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/self_probe.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace postern::intercept {
namespace {

net::SocketAddress At(const char* text) {
  return net::SocketAddress::Parse(text).value();
}

TEST(ProbeSlotTest, ClaimsTheExpectedProbeOnceAndNothingElse) {
  ProbeSlot slot;
  EXPECT_FALSE(slot.Claim(At("127.0.0.1:40000"))) << "none is expected";
  slot.Expect(true, 40000);
  EXPECT_FALSE(slot.Claim(At("127.0.0.1:40001")));
  EXPECT_FALSE(slot.Claim(At("198.18.0.1:40000"))) << "not from this host";
  EXPECT_FALSE(slot.Claim(At("[::1]:40000"))) << "another family";
  EXPECT_FALSE(slot.Claim(At("unix:/x")));
  EXPECT_FALSE(slot.IsClaimed(true));
  EXPECT_TRUE(slot.Claim(At("127.0.0.1:40000")));
  EXPECT_TRUE(slot.IsClaimed(true));
  EXPECT_FALSE(slot.Claim(At("127.0.0.1:40000"))) << "the application may have the port next";
  slot.Expect(true, 40002);
  EXPECT_FALSE(slot.IsClaimed(true));
}

TEST(ProbeSlotTest, GivesAProbeToOneWorkerAlone) {
  ProbeSlot slot;
  for (int round = 0; round < 200; ++round) {
    slot.Expect(false, 40000);
    std::atomic<int> claims{0};
    std::vector<std::thread> workers;
    for (int i = 0; i < 3; ++i) {
      workers.emplace_back([&] { claims += slot.Claim(At("[::1]:40000")) ? 1 : 0; });
    }
    for (std::thread& worker : workers) {
      worker.join();
    }
    ASSERT_EQ(claims, 1);
  }
}

TEST(ProbeTargetTest, IsLoopbackSoThatNothingLeavesTheHost) {
  EXPECT_EQ(ProbeTarget(15001, true), At("127.0.0.1:20001"));
  EXPECT_EQ(ProbeTarget(15001, false), At("[::1]:20001"));
}

}  // namespace
}  // namespace postern::intercept
