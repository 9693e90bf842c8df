// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/source_limits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace postern::session {
namespace {

using base::CloseReason;
using std::chrono::milliseconds;

net::SocketAddress From(const std::string& ip, uint16_t port = 40000) {
  return {base::IpAddress::Parse(ip).value(), port};
}

// Workers with places for handshakes and connections, as the proxy has them, and a clock that the
// test moves.
class SourceLimitsTest : public ::testing::Test {
 protected:
  void Make() { limits_.emplace(config_, connections_ * workers_); }
  SourceLimits& limits() {
    if (!limits_.has_value()) {
      Make();
    }
    return *limits_;
  }

  // A connection from `source` that stays; nullopt when it is let in, else why not.
  std::optional<CloseReason> Open(const std::string& source) {
    const size_t taken = held_.size();
    const size_t handshakes = taken - done_;
    const SourceLimits::Room room = {
        .handshakes = handshakes_ - std::min(handshakes / workers_, handshakes_),
        .connections = connections_ - std::min(taken / workers_, connections_),
        .workers = workers_};
    SourceHold hold;
    const auto refusal = limits().Admit(From(source), room, now_, hold);
    if (refusal.has_value()) {
      return refusal->reason;
    }
    held_.push_back(std::move(hold));
    return std::nullopt;
  }
  // How many of so many attempts are let in.
  size_t Opened(const std::string& source, size_t attempts) {
    size_t opened = 0;
    for (size_t i = 0; i < attempts; ++i) {
      opened += Open(source).has_value() ? 0 : 1;
    }
    return opened;
  }
  void EndHandshakes() {
    for (SourceHold& hold : held_) {
      hold.EndHandshake();
    }
    done_ = held_.size();
  }
  void Close() {
    held_.clear();
    done_ = 0;
  }

  config::ProxyConfig config_;
  size_t handshakes_ = 1000;
  size_t connections_ = 100'000;
  size_t workers_ = 1;
  milliseconds now_{0};
  std::optional<SourceLimits> limits_;
  std::vector<SourceHold> held_;
  size_t done_ = 0;
};

TEST_F(SourceLimitsTest, AGreedySourceLeavesFourFifthsOfTheHandshakesToOthers) {
  EXPECT_EQ(Opened("198.18.0.1", 5000), 200U);
  EXPECT_EQ(Open("198.18.0.1"), CloseReason::kSourceHandshakes);
  EXPECT_EQ(Open("198.18.0.2"), std::nullopt);
  EndHandshakes();
  EXPECT_EQ(Open("198.18.0.1"), std::nullopt) << "what is over does not count";
}

TEST_F(SourceLimitsTest, ManyGreedySourcesStillLeaveAShare) {
  for (int i = 0; i < 9; ++i) {
    Opened("198.18.0." + std::to_string(i), 5000);
  }
  EXPECT_LT(held_.size(), 900U);
  EXPECT_EQ(Opened("198.18.1.1", 20), 20U);
}

TEST_F(SourceLimitsTest, TheShareIsOfAllWorkers) {
  workers_ = 4;
  EXPECT_EQ(Opened("198.18.0.1", 9000), 800U);
}

TEST_F(SourceLimitsTest, AGreedySourceLeavesAnEighthOfTheConnectionsToOthers) {
  connections_ = 800;
  handshakes_ = 1'000'000;
  size_t opened = 0;
  for (int i = 0; i < 2000; ++i) {
    opened += Open("198.18.0.1").has_value() ? 0 : 1;
    EndHandshakes();
  }
  EXPECT_EQ(opened, 700U);
  EXPECT_EQ(Open("198.18.0.1"), CloseReason::kSourceConnections);
  EXPECT_EQ(Open("198.18.0.2"), std::nullopt);
}

TEST_F(SourceLimitsTest, AFewHandshakesInAllAreNotShared) {
  handshakes_ = 16;
  EXPECT_EQ(Opened("198.18.0.1", 16), 16U);
}

TEST_F(SourceLimitsTest, AFewConnectionsInAllAreNotShared) {
  connections_ = 4;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(Open("198.18.0.1"), std::nullopt) << i;
    EndHandshakes();
  }
}

TEST_F(SourceLimitsTest, HandshakesOfOneSourceAreBoundedAsAskedFor) {
  config_.max_handshakes_per_source = 3;
  EXPECT_EQ(Opened("198.18.0.1", 10), 3U);
  EXPECT_EQ(Open("198.18.0.1"), CloseReason::kSourceHandshakes);
  EXPECT_EQ(Opened("198.18.0.2", 10), 3U);
  EndHandshakes();
  EXPECT_EQ(Opened("198.18.0.1", 10), 3U);
}

// A client that was let in silent, and begins a ClientHello then.
TEST_F(SourceLimitsTest, AHandshakeThatBeginsLateCountsAgain) {
  config_.max_handshakes_per_source = 2;
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(Open("198.18.0.1"), std::nullopt);
    EndHandshakes();
  }
  const SourceLimits::Room room = {.handshakes = 1000, .connections = 1000, .workers = 1};
  const auto begin = [&](SourceHold& hold) {
    const auto refusal = limits().AdmitHandshake(room, hold);
    return refusal.has_value() ? std::optional(refusal->reason) : std::nullopt;
  };
  EXPECT_EQ(begin(held_[0]), std::nullopt);
  EXPECT_EQ(begin(held_[0]), std::nullopt) << "it counts once";
  EXPECT_EQ(begin(held_[1]), std::nullopt);
  EXPECT_EQ(limits().HandshakesForTest(From("198.18.0.1")), 2U);
  EXPECT_EQ(begin(held_[2]), CloseReason::kSourceHandshakes);
  EXPECT_EQ(limits().HandshakesForTest(From("198.18.0.1")), 2U) << "who is refused is not counted";
  held_[0].EndHandshake();
  EXPECT_EQ(begin(held_[3]), std::nullopt);
  held_.clear();
  EXPECT_EQ(limits().HandshakesForTest(From("198.18.0.1")), 0U);
}

TEST_F(SourceLimitsTest, OfHandshakesThatBeginLateASourceHasItsShareOfThePlacesToo) {
  handshakes_ = 100;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(Open("198.18.0.1"), std::nullopt);
    EndHandshakes();
  }
  size_t begun = 0;
  for (SourceHold& hold : held_) {
    const SourceLimits::Room room = {
        .handshakes = handshakes_ - begun, .connections = connections_, .workers = 1};
    begun += limits().AdmitHandshake(room, hold).has_value() ? 0 : 1;
  }
  EXPECT_EQ(begun, 20U);
}

TEST_F(SourceLimitsTest, LateHandshakesOfThisHostAreNotBounded) {
  config_.max_handshakes_per_source = 1;
  ASSERT_EQ(Opened("127.0.0.1", 20), 20U);
  EndHandshakes();
  for (SourceHold& hold : held_) {
    EXPECT_FALSE(limits().AdmitHandshake({}, hold).has_value());
  }
}

TEST_F(SourceLimitsTest, ConnectionsOfOneSourceAreBoundedAsAskedFor) {
  config_.max_connections_per_source = 3;
  EXPECT_EQ(Opened("198.18.0.1", 10), 3U);
  EndHandshakes();
  EXPECT_EQ(Open("198.18.0.1"), CloseReason::kSourceConnections);
  EXPECT_EQ(Opened("198.18.0.2", 10), 3U);
  held_.front().Release();
  EXPECT_EQ(Opened("198.18.0.1", 10), 1U);
}

TEST_F(SourceLimitsTest, TheRateOfOneSourceIsBoundedAsAskedFor) {
  config_.max_rate_per_source = 20;
  EXPECT_EQ(Opened("198.18.0.1", 100), 40U) << "two seconds' worth";
  EXPECT_EQ(Open("198.18.0.1"), CloseReason::kSourceRate);
  EXPECT_EQ(Opened("198.18.0.2", 100), 40U);
  Close();
  now_ += milliseconds(500);
  EXPECT_EQ(Opened("198.18.0.1", 100), 10U);
}

TEST_F(SourceLimitsTest, ASmallRateStillLetsAFewComeAtOnce) {
  config_.max_rate_per_source = 1;
  EXPECT_EQ(Opened("198.18.0.1", 100), 10U);
}

TEST_F(SourceLimitsTest, WhatIsRefusedCountsForNothing) {
  config_.max_handshakes_per_source = 2;
  config_.max_rate_per_source = 20;
  EXPECT_EQ(Opened("198.18.0.1", 100), 2U);
  EXPECT_EQ(limits().HandshakesForTest(From("198.18.0.1")), 2U);
  EXPECT_EQ(limits().ConnectionsForTest(From("198.18.0.1")), 2U);
  EndHandshakes();
  EXPECT_EQ(Opened("198.18.0.1", 100), 2U) << "the refusals took no tokens";
  Close();
  EXPECT_EQ(limits().HandshakesForTest(From("198.18.0.1")), 0U);
  EXPECT_EQ(limits().ConnectionsForTest(From("198.18.0.1")), 0U);
}

TEST_F(SourceLimitsTest, AnIpv6NetworkIsOneSource) {
  config_.max_connections_per_source = 2;
  EXPECT_EQ(Open("fd00:5b::1"), std::nullopt);
  EXPECT_EQ(Open("fd00:5b::2"), std::nullopt);
  EXPECT_EQ(Open("fd00:5b::ffff:ffff:3"), CloseReason::kSourceConnections);
  EXPECT_EQ(Open("fd00:5b:0:1::1"), std::nullopt);
  EXPECT_EQ(Open("::ffff:198.18.0.1"), std::nullopt);
  EXPECT_EQ(Open("::ffff:198.18.0.2"), std::nullopt) << "an IPv4 address is a source by itself";
}

TEST_F(SourceLimitsTest, LinkLocalHostsAreSourcesOfTheirOwn) {
  config_.max_connections_per_source = 1;
  EXPECT_EQ(Open("fe80::1"), std::nullopt);
  EXPECT_EQ(Open("fe80::2"), std::nullopt);
  EXPECT_EQ(Open("fe80::1"), CloseReason::kSourceConnections);
}

TEST_F(SourceLimitsTest, ThisHostIsNotBounded) {
  config_.max_connections_per_source = 1;
  config_.max_handshakes_per_source = 1;
  config_.max_rate_per_source = 1;
  EXPECT_EQ(Opened("127.0.0.1", 5000), 5000U);
  EXPECT_EQ(Opened("::1", 100), 100U);
  SourceHold hold;
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(limits().Admit(net::SocketAddress::Unix("@"), {}, now_, hold).has_value());
  }
}

TEST_F(SourceLimitsTest, ConnectionsOfOnePeerAreBoundedWhereverTheyComeFrom) {
  config_.max_connections_per_peer = 2;
  const auto admit = [this](const std::string& id) {
    SourceHold hold;
    const auto refusal = limits().AdmitPeer(id, hold);
    if (!refusal.has_value()) {
      held_.push_back(std::move(hold));
    }
    return refusal.has_value() ? std::optional(refusal->reason) : std::nullopt;
  };
  EXPECT_EQ(admit("spiffe://td/a"), std::nullopt);
  EXPECT_EQ(admit("spiffe://td/a"), std::nullopt);
  EXPECT_EQ(admit("spiffe://td/a"), CloseReason::kPeerConnections);
  EXPECT_EQ(admit("spiffe://td/b"), std::nullopt);
  held_.erase(held_.begin());
  EXPECT_EQ(admit("spiffe://td/a"), std::nullopt);
}

TEST_F(SourceLimitsTest, APeerIsCountedOnceForEachConnection) {
  config_.max_connections_per_peer = 1;
  SourceHold hold;
  EXPECT_FALSE(limits().AdmitPeer("spiffe://td/a", hold).has_value());
  EXPECT_FALSE(limits().AdmitPeer("spiffe://td/a", hold).has_value());
  hold.Release();
  SourceHold other;
  EXPECT_FALSE(limits().AdmitPeer("spiffe://td/a", other).has_value());
}

TEST_F(SourceLimitsTest, AHoldThatIsMovedCountsOnce) {
  config_.max_connections_per_source = 1;
  ASSERT_EQ(Open("198.18.0.1"), std::nullopt);
  SourceHold moved = std::move(held_.front());
  held_.clear();
  EXPECT_EQ(limits().ConnectionsForTest(From("198.18.0.1")), 1U);
  moved = SourceHold();
  EXPECT_EQ(limits().ConnectionsForTest(From("198.18.0.1")), 0U);
}

TEST_F(SourceLimitsTest, AWorkerHasItsShareOfTheHandshakes) {
  EXPECT_EQ(HandshakesOfWorker(config_), 2048U);
  config_.workers = 4;
  EXPECT_EQ(HandshakesOfWorker(config_), 2048U) << "unasked each has as many";
  config_.max_handshakes = 100;
  EXPECT_EQ(HandshakesOfWorker(config_), 25U);
  config_.max_handshakes = 1;
  EXPECT_EQ(HandshakesOfWorker(config_), 1U);
}

}  // namespace
}  // namespace postern::session
