// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/relay.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/fakes/fake_transport.h"

namespace postern::session {
namespace {

using base::CloseReason;
using base::Side;
using fakes::FakeTransport;

constexpr size_t kHigh = 1000;
constexpr size_t kLow = 200;

class RelayTest : public ::testing::Test, public Relay::Owner {
 protected:
  RelayTest() : loop_(net::Loop::Create().value()), scratch_(4096) {
    options_.high_watermark = kHigh;
    options_.low_watermark = kLow;
    options_.scratch = scratch_;
    options_.counters = {&from_downstream_, &from_upstream_};
    Relay::Owner& owner = *this;
    relay_.emplace(*loop_, downstream_, upstream_, owner, options_);
  }

  bool OnFirstBytes(base::ByteSpan bytes) noexcept override {
    first_bytes_ = std::string(base::AsText(bytes));
    return !refuse_first_bytes_;
  }
  void OnRelayDone() noexcept override { ++done_; }
  void OnRelayFailed(const base::Failure& failure) noexcept override {
    failures_.push_back(failure);
  }

  void Poll() {
    for (int i = 0; i < 3; ++i) {
      downstream_.Poll();
      upstream_.Poll();
    }
  }

  std::unique_ptr<net::Loop> loop_;
  std::vector<uint8_t> scratch_;
  telemetry::Counter from_downstream_, from_upstream_;
  FakeTransport downstream_, upstream_;
  Relay::Options options_;
  std::optional<Relay> relay_;
  std::string first_bytes_;
  std::vector<base::Failure> failures_;
  int done_ = 0;
  bool refuse_first_bytes_ = false;
};

TEST_F(RelayTest, CarriesBytesBothWaysAndCountsThem) {
  relay_->Start({});
  downstream_.PeerSays("question");
  upstream_.PeerSays("the answer");
  Poll();
  EXPECT_EQ(upstream_.received(), "question");
  EXPECT_EQ(downstream_.received(), "the answer");
  EXPECT_EQ(relay_->bytes_from(Side::kDownstream), 8U);
  EXPECT_EQ(relay_->bytes_from(Side::kUpstream), 10U);
  EXPECT_EQ(from_downstream_.value(), 8U);
  EXPECT_EQ(from_upstream_.value(), 10U);
}

TEST_F(RelayTest, SendsWhatWasReadBeforeItsStartFirst) {
  downstream_.PeerSays(" and more");
  relay_->Start(base::AsBytes("sniffed"));
  Poll();
  EXPECT_EQ(upstream_.received(), "sniffed and more");
  EXPECT_EQ(first_bytes_, "sniffed");
}

TEST_F(RelayTest, SendsTheProxysOwnBytesFirstAndCountsThemForNobody) {
  relay_->Start(base::AsBytes("PROXY question"), 6);
  EXPECT_EQ(upstream_.received(), "PROXY question");
  EXPECT_EQ(upstream_.writes(), 1U) << "in one write";
  EXPECT_EQ(first_bytes_, "question");
  EXPECT_EQ(relay_->bytes_from(Side::kDownstream), 8U);
  EXPECT_EQ(from_downstream_.value(), 8U);
}

TEST_F(RelayTest, SendsTheProxysOwnBytesThoughTheDownstreamIsSilent) {
  relay_->Start(base::AsBytes("PROXY "), 6);
  EXPECT_EQ(upstream_.received(), "PROXY ");
  EXPECT_EQ(first_bytes_, "");
  downstream_.PeerSays("at last");
  Poll();
  EXPECT_EQ(upstream_.received(), "PROXY at last");
  EXPECT_EQ(first_bytes_, "at last");
  EXPECT_EQ(from_downstream_.value(), 7U);
}

TEST_F(RelayTest, KeepsOfItsOwnBytesWhatTheUpstreamDoesNotTakeYet) {
  upstream_.SetRoom(3);
  relay_->Start(base::AsBytes("PROXY question"), 6);
  EXPECT_EQ(upstream_.received(), "PRO");
  upstream_.SetRoom(100);
  Poll();
  EXPECT_EQ(upstream_.received(), "PROXY question");
  EXPECT_EQ(from_downstream_.value(), 8U);
}

TEST_F(RelayTest, StopsWhenTheFirstBytesAreRefused) {
  refuse_first_bytes_ = true;
  relay_->Start({});
  downstream_.PeerSays("unwanted");
  downstream_.Poll();
  relay_->Stop();
  EXPECT_EQ(upstream_.received(), "");
}

TEST_F(RelayTest, ReadsAtOnceWhatTheHandshakeLeftInsideTheTransport) {
  downstream_.PeerSays("left over");
  downstream_.SetBuffered(1);
  relay_->Start({});
  EXPECT_EQ(upstream_.received(), "left over");
}

TEST_F(RelayTest, ReadsOnWhileTheTransportHoldsDecryptedBytes) {
  relay_->Start({});
  downstream_.PeerSays("one ");
  downstream_.PeerSays("two ");
  downstream_.PeerSays("three");
  downstream_.SetBuffered(3);
  downstream_.Poll();
  EXPECT_EQ(upstream_.received(), "one two three");
}

TEST_F(RelayTest, DoesOneReadForEachReadiness) {
  relay_->Start({});
  downstream_.PeerSays("one");
  const size_t before = downstream_.reads();
  downstream_.Poll();
  EXPECT_EQ(downstream_.reads(), before + 1);
}

TEST_F(RelayTest, StopsReadingAtTheHighWatermarkAndResumesAtTheLowOne) {
  relay_->Start({});
  upstream_.SetRoom(0);
  for (int i = 0; i < 5; ++i) {
    downstream_.PeerSays(std::string(400, static_cast<char>('a' + i)));
  }
  downstream_.Poll();
  EXPECT_FALSE(downstream_.wants_read());
  EXPECT_EQ(downstream_.chunks_left(), 2U) << "1200 bytes wait, 1000 is the limit";
  EXPECT_EQ(relay_->Backlog(), 1200U);

  upstream_.SetRoom(900);
  upstream_.Poll();
  EXPECT_FALSE(downstream_.wants_read()) << "300 bytes still wait, 200 is the low mark";

  upstream_.SetRoom(10000);
  Poll();
  EXPECT_EQ(upstream_.received().size(), 2000U);
  EXPECT_EQ(upstream_.received().substr(1600), std::string(400, 'e'));
  EXPECT_EQ(relay_->Backlog(), 0U);
}

TEST_F(RelayTest, WakesASourceWhoseBytesWaitInsideItWhenTheSinkHasRoomAgain) {
  relay_->Start({});
  upstream_.SetRoom(0);
  for (int i = 0; i < 4; ++i) {
    downstream_.PeerSays(std::string(600, 'x'));
  }
  downstream_.SetBuffered(4);
  downstream_.Poll();
  ASSERT_FALSE(downstream_.wants_read());
  upstream_.SetRoom(10000);
  upstream_.Poll();  // no readiness of the downstream is told
  EXPECT_EQ(upstream_.received().size(), 2400U);
}

TEST_F(RelayTest, KeepsTheOrderOfBytesWhenASinkTakesThemInSmallPieces) {
  relay_->Start({});
  std::string sent;
  upstream_.SetRoom(3);
  for (int i = 0; i < 50; ++i) {
    const std::string piece = std::to_string(i) + ",";
    sent += piece;
    downstream_.PeerSays(piece);
    downstream_.Poll();
    upstream_.SetRoom(2);
    upstream_.Poll();
  }
  upstream_.SetRoom(10000);
  Poll();
  EXPECT_EQ(upstream_.received(), sent);
}

TEST_F(RelayTest, PassesAnEndOnBehindTheLastByteAndLeavesTheOtherDirectionOpen) {
  relay_->Start({});
  upstream_.SetRoom(2);
  downstream_.PeerSays("request");
  downstream_.PeerEnds();
  downstream_.Poll();
  EXPECT_FALSE(upstream_.write_closed()) << "five bytes still wait";
  upstream_.SetRoom(100);
  upstream_.Poll();
  EXPECT_EQ(upstream_.received(), "request");
  EXPECT_TRUE(upstream_.write_closed());
  EXPECT_EQ(done_, 0);

  upstream_.PeerSays("late answer");
  upstream_.Poll();
  EXPECT_EQ(downstream_.received(), "late answer");
  upstream_.PeerEnds();
  upstream_.Poll();
  EXPECT_TRUE(downstream_.write_closed());
  EXPECT_EQ(done_, 1);
  EXPECT_TRUE(failures_.empty());
}

TEST_F(RelayTest, ReportsAFailedSourceWithItsSideOnce) {
  relay_->Start({});
  upstream_.PeerSays("partial");
  upstream_.PeerFails(CloseReason::kTruncated);
  Poll();
  EXPECT_EQ(downstream_.received(), "partial");
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_EQ(failures_[0].reason, CloseReason::kTruncated);
  EXPECT_EQ(failures_[0].side, Side::kUpstream);
  EXPECT_FALSE(downstream_.write_closed()) << "a truncation is never a clean end";
}

TEST_F(RelayTest, ReadsTheLastWordsOfASinkThatFails) {
  relay_->Start({});
  upstream_.PeerSays("413 too large");
  upstream_.FailWrites(CloseReason::kReset);
  downstream_.PeerSays("body");
  downstream_.Poll();
  EXPECT_EQ(downstream_.received(), "413 too large");
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_EQ(failures_[0].reason, CloseReason::kReset);
  EXPECT_EQ(failures_[0].side, Side::kUpstream);
}

TEST_F(RelayTest, PrefersTheAlertThatWaitsBehindAFailedWrite) {
  relay_->Start({});
  upstream_.FailWrites(CloseReason::kReset);
  upstream_.PeerFails(CloseReason::kRejectedByPeer);
  downstream_.PeerSays("request");
  downstream_.Poll();
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_EQ(failures_[0].reason, CloseReason::kRejectedByPeer);
}

TEST_F(RelayTest, EndsWhenTheEndCannotBePassedOn) {
  relay_->Start({});
  downstream_.PeerEnds();
  downstream_.Poll();
  downstream_.FailWrites(CloseReason::kReset);
  upstream_.PeerEnds();
  upstream_.Poll();
  EXPECT_EQ(done_, 0);
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_EQ(failures_[0].reason, CloseReason::kReset);
  EXPECT_EQ(failures_[0].side, Side::kDownstream);
}

TEST_F(RelayTest, FindsADeadPeerByWhatItDoesNotAcknowledge) {
  relay_->Start({});
  downstream_.SetUnacknowledged(std::chrono::seconds(59));
  relay_->CheckLiveness(std::chrono::seconds(60));
  EXPECT_TRUE(failures_.empty());
  downstream_.SetUnacknowledged(std::chrono::seconds(61));
  relay_->CheckLiveness(std::chrono::seconds(60));
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_EQ(failures_[0].reason, CloseReason::kPeerDead);
  EXPECT_EQ(failures_[0].side, Side::kDownstream);
}

TEST_F(RelayTest, FindsAResetOfAnEndThatIsNoLongerRead) {
  relay_->Start({});
  downstream_.PeerEnds();
  downstream_.Poll();
  downstream_.SetPeerHasReset();
  relay_->CheckLiveness(std::chrono::seconds(60));
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_EQ(failures_[0].reason, CloseReason::kReset);
}

}  // namespace
}  // namespace postern::session
