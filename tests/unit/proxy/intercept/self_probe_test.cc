// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/self_probe.h"

#include <gtest/gtest.h>

#include <cerrno>
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

TEST(ProbeSlotTest, CountsTheWorkersThatDoNotAccept) {
  ProbeSlot slot;
  EXPECT_FALSE(slot.HasClosedGate());
  slot.GateClosed();
  slot.GateClosed();
  slot.GateOpened();
  EXPECT_TRUE(slot.HasClosedGate()) << "the kernel picks the worker, so one is enough";
  slot.GateOpened();
  EXPECT_FALSE(slot.HasClosedGate());
}

TEST(ProbeFindingTest, IsCaughtWhenAWorkerHasItOrItWaitsForOne) {
  EXPECT_EQ(Judge({.claimed = true}), ProbeFinding::kCaught);
  EXPECT_EQ(Judge({.connected = true, .at_outbound_port = true}), ProbeFinding::kCaught);
  EXPECT_EQ(Judge({.connected = true, .at_outbound_port = true, .gate_closed = true}),
            ProbeFinding::kCaught);
}

TEST(ProbeFindingTest, ARefusalIsTheHostsOwnAlsoAtALimit) {
  for (const bool gate_closed : {false, true}) {
    EXPECT_EQ(Judge({.error = ECONNREFUSED, .gate_closed = gate_closed}), ProbeFinding::kNotCaught);
  }
}

TEST(ProbeFindingTest, OneThatReachedSomebodyElseIsElsewhereAlsoAtALimit) {
  for (const bool gate_closed : {false, true}) {
    EXPECT_EQ(Judge({.connected = true, .at_outbound_port = false, .gate_closed = gate_closed}),
              ProbeFinding::kElsewhere);
    EXPECT_EQ(Judge({.error = EPERM, .gate_closed = gate_closed}), ProbeFinding::kElsewhere);
  }
}

TEST(ProbeFindingTest, OneThatNobodyAnswersProvesNothingAtALimit) {
  EXPECT_EQ(Judge({.at_outbound_port = false}), ProbeFinding::kElsewhere);
  EXPECT_EQ(Judge({.at_outbound_port = false, .gate_closed = true}), ProbeFinding::kNothing)
      << "the queue may be full";
  EXPECT_EQ(Judge({.connected = true}), ProbeFinding::kElsewhere);
  EXPECT_EQ(Judge({.connected = true, .gate_closed = true}), ProbeFinding::kNothing)
      << "the kernel does not say where it is";
}

TEST(ProbeTargetTest, IsLoopbackSoThatNothingLeavesTheHost) {
  EXPECT_EQ(ProbeTarget(15001, true), At("127.0.0.1:20001"));
  EXPECT_EQ(ProbeTarget(15001, false), At("[::1]:20001"));
}

}  // namespace
}  // namespace postern::intercept
