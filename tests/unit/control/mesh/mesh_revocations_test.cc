// SPDX-License-Identifier: Apache-2.0
// Revocations on their way to the proxies: who has been sent what, and who has followed.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "control/mesh/mesh_state.h"
#include "tests/fakes/fake_clock.h"

namespace postern::mesh {
namespace {

class MeshRevocationsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
    state_ = *MeshState::Create(*store_, clock_);
    entry_ = *store_->entries().CreateEntry(
        {.spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
         .selectors = {"unix:uid:1"}});
    EXPECT_TRUE(state_->ReloadEntries().ok());
  }
  std::unique_ptr<Session> Connect(std::atomic<int>* wakes = nullptr) {
    return *state_->Connect({entry_->spiffe_id, entry_->id, *base::IpAddress::Parse("198.18.0.1")},
                            [wakes] {
                              if (wakes != nullptr) {
                                ++*wakes;
                              }
                            });
  }
  void Set(uint64_t sequence) { state_->SetRevocations({{1, sequence}, "list", "signature", {}}); }

  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::shared_ptr<MeshState> state_;
  std::optional<store::Entry> entry_;
};

TEST_F(MeshRevocationsTest, AreSentOnceAndAgainWhenTheyChange) {
  std::atomic<int> wakes{0};
  const auto session = Connect(&wakes);
  EXPECT_EQ(session->Take().revocations, nullptr) << "none were set";
  Set(1);
  EXPECT_EQ(wakes.load(), 1);
  const Updates first = session->Take();
  ASSERT_NE(first.revocations, nullptr);
  EXPECT_EQ(first.revocations->list, "list");
  EXPECT_EQ(session->Take().revocations, nullptr);
  Set(2);
  EXPECT_EQ(session->Take().revocations->version, (Version{1, 2}));
}

TEST_F(MeshRevocationsTest, AProxyThatHoldsThemIsNotSentThemAgain) {
  Set(3);
  const auto session = Connect();
  session->SetHeld(Kind::kRevocations, {1, 3});
  EXPECT_EQ(session->Take().revocations, nullptr);
  EXPECT_EQ(state_->AwaitRevocations({1, 3}, absl::ZeroDuration()).acknowledged, 1U);
  const auto behind = Connect();
  behind->SetHeld(Kind::kRevocations, {1, 2});
  EXPECT_NE(behind->Take().revocations, nullptr) << "it catches up";
}

TEST_F(MeshRevocationsTest, WaitingEndsWhenEveryProxyHasFollowed) {
  Set(1);
  const auto one = Connect();
  const auto two = Connect();
  one->Acknowledge(Kind::kRevocations, {1, 1}, "");
  const auto half = state_->AwaitRevocations({1, 1}, absl::Milliseconds(1));
  EXPECT_EQ(half.connected, 2U);
  EXPECT_EQ(half.acknowledged, 1U);
  std::thread follower([&two] { two->Acknowledge(Kind::kRevocations, {1, 1}, ""); });
  const auto all = state_->AwaitRevocations({1, 1}, absl::Seconds(30));
  follower.join();
  EXPECT_EQ(all.acknowledged, 2U);
}

TEST_F(MeshRevocationsTest, WaitingEndsWhenTheLastOneThatLagsHasGone) {
  Set(1);
  auto session = Connect();
  std::thread leaver([&session] { session.reset(); });
  const auto followed = state_->AwaitRevocations({1, 1}, absl::Seconds(30));
  leaver.join();
  EXPECT_EQ(followed.connected, 0U);
}

TEST_F(MeshRevocationsTest, ANackIsNoAcknowledgement) {
  Set(1);
  const auto session = Connect();
  session->Acknowledge(Kind::kRevocations, {1, 1}, "the signature does not hold");
  EXPECT_EQ(state_->AwaitRevocations({1, 1}, absl::ZeroDuration()).acknowledged, 0U);
  EXPECT_EQ(state_->Proxies().front().last_error, "the signature does not hold");
}

TEST_F(MeshRevocationsTest, AProxyWhoseEntryIsDeletedIsToldAtOnce) {
  std::atomic<int> wakes{0};
  const auto session = Connect(&wakes);
  EXPECT_FALSE(session->Take().entry_gone);
  ASSERT_TRUE(store_->entries().DeleteEntry(entry_->id).ok());
  ASSERT_TRUE(state_->ReloadEntry(entry_->id).ok());
  EXPECT_EQ(wakes.load(), 1);
  EXPECT_TRUE(session->Take().entry_gone);
}

}  // namespace
}  // namespace postern::mesh
