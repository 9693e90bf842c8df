// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/endpoint_cache.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "tests/fakes/fake_clock.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"

namespace postern::identity {
namespace {

using Answer = EndpointDirectory::Answer;

net::SocketAddress At(const std::string& text) {
  return net::SocketAddress::Parse(text).value();
}
AddressKey Key(const std::string& text) {
  return {At(text).ip(), At(text).port()};
}

Answer Mesh(const char* id) {
  config::MeshDestination destination;
  destination.expected.push_back(x509::SpiffeIdPattern::Parse(id).value());
  return std::optional(destination);
}
Answer Plain() {
  return std::optional<config::MeshDestination>();
}

class EndpointCacheTest : public ::testing::Test {
 protected:
  EndpointCacheTest()
      : loop_(net::Loop::Create().value()),
        seen_(dir_.Path("seen")),
        cache_(*loop_, clock_, &seen_) {}

  void Connect() {
    cache_.SetUpstream({[this](const std::vector<AddressKey>& keys) {
                          subscribed_.insert(subscribed_.end(), keys.begin(), keys.end());
                        },
                        [this](const std::vector<AddressKey>& keys) {
                          unsubscribed_.insert(unsubscribed_.end(), keys.begin(), keys.end());
                        },
                        [this] { ++hurried_; }});
  }
  // Looks up on the main loop; the answer comes into `answer_`.
  void Look(const std::string& destination) {
    answer_.reset();
    query_ = cache_.Lookup(*loop_, At(destination), [this](Answer answer) { answer_ = answer; });
  }
  void RunPosted() { testing::RunFor(*loop_, std::chrono::milliseconds(10)); }
  void Learn(const std::string& destination, Answer answer) {
    Look(destination);
    RunPosted();
    cache_.OnAnswer(Key(destination), std::move(answer), "wire of " + destination);
    RunPosted();
    query_.reset();
  }

  const testing::TempDir dir_;
  std::unique_ptr<net::Loop> loop_;
  fakes::FakeClock clock_;
  SeenList seen_;
  EndpointCache cache_;
  std::unique_ptr<EndpointDirectory::Query> query_;
  std::optional<Answer> answer_;
  std::vector<AddressKey> subscribed_, unsubscribed_;
  int hurried_ = 0;
};

TEST_F(EndpointCacheTest, HurriesForEachLookupThatWaitsAndForNothingElse) {
  Connect();
  Look("198.18.0.5:80");
  RunPosted();
  EXPECT_EQ(hurried_, 1);
  Look("198.18.0.5:80");  // asked already, and still nobody has answered
  RunPosted();
  EXPECT_EQ(hurried_, 2);
  EXPECT_EQ(subscribed_.size(), 1U);
  cache_.OnAnswer(Key("198.18.0.5:80"), Plain(), "");
  Look("198.18.0.5:80");
  cache_.IsMeshMember(base::IpAddress::Parse("198.18.0.6").value());
  RunPosted();
  EXPECT_EQ(hurried_, 2);
}

TEST_F(EndpointCacheTest, KnowsOnlyStaticDestinationsWithoutAnIssuer) {
  cache_.SetStatic(std::make_shared<const config::DestinationSet>(
      config::DestinationSet::FromYaml("apiVersion: postern.dev/v1\n"
                                       "kind: Destination\n"
                                       "metadata: {name: db}\n"
                                       "spec: {addresses: [192.0.2.7], ports: [5432], "
                                       "spiffeIds: ['spiffe://example.org/db']}\n",
                                       "d.yaml")
          .value()));
  Look("192.0.2.7:5432");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_EQ((**answer_)->expected.front().ToString(), "spiffe://example.org/db");
  Look("192.0.2.7:80");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_FALSE((*answer_)->has_value());
  Look("unix:/run/x");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_FALSE((*answer_)->has_value());
}

TEST_F(EndpointCacheTest, AsksOnceAndAnswersEveryWaiter) {
  Connect();
  int answers = 0;
  std::vector<std::unique_ptr<EndpointDirectory::Query>> queries;
  for (int i = 0; i < 3; ++i) {
    queries.push_back(
        cache_.Lookup(*loop_, At("192.0.2.1:80"), [&answers](const Answer&) { ++answers; }));
    EXPECT_NE(queries.back(), nullptr);
  }
  RunPosted();
  EXPECT_EQ(subscribed_, std::vector<AddressKey>{Key("192.0.2.1:80")});
  EXPECT_EQ(answers, 0);
  cache_.OnAnswer(Key("192.0.2.1:80"), Mesh("spiffe://example.org/db"), "");
  RunPosted();
  EXPECT_EQ(answers, 3);
}

TEST_F(EndpointCacheTest, AnswersWhatItKnowsAtOnce) {
  Connect();
  Learn("192.0.2.1:80", Mesh("spiffe://example.org/db"));
  Look("192.0.2.1:80");
  EXPECT_EQ(query_, nullptr);
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE((*answer_)->has_value());
  EXPECT_EQ(subscribed_.size(), 1U);
}

TEST_F(EndpointCacheTest, FollowsTheIssuersChanges) {
  Connect();
  Learn("192.0.2.1:80", Plain());
  cache_.OnAnswer(Key("192.0.2.1:80"), Mesh("spiffe://example.org/db"), "");
  Look("192.0.2.1:80");
  EXPECT_TRUE((**answer_).has_value());
}

TEST_F(EndpointCacheTest, DoesNotCallBackADestroyedQuery) {
  Connect();
  Look("192.0.2.1:80");
  RunPosted();
  query_.reset();
  cache_.OnAnswer(Key("192.0.2.1:80"), Plain(), "");
  RunPosted();
  EXPECT_FALSE(answer_.has_value());
  // Also when the answer is on its way already.
  Look("192.0.2.2:80");
  RunPosted();
  cache_.OnAnswer(Key("192.0.2.2:80"), Plain(), "");
  query_.reset();
  RunPosted();
  EXPECT_FALSE(answer_.has_value());
}

TEST_F(EndpointCacheTest, LetsAQueryDieInsideItsCallback) {
  Connect();
  query_ = cache_.Lookup(*loop_, At("192.0.2.1:80"), [this](Answer answer) {
    answer_ = std::move(answer);
    query_.reset();
  });
  RunPosted();
  cache_.OnAnswer(Key("192.0.2.1:80"), Plain(), "");
  RunPosted();
  EXPECT_TRUE(answer_.has_value());
}

TEST_F(EndpointCacheTest, RefusesPlaintextToWhatWasInTheMeshOnce) {
  Connect();
  Learn("192.0.2.1:80", Mesh("spiffe://example.org/db"));
  cache_.OnAnswer(Key("192.0.2.1:80"), Plain(), "");
  Look("192.0.2.1:80");
  EXPECT_TRUE(absl::IsFailedPrecondition(answer_->status()));
  // Until an operator takes it off the list.
  ASSERT_TRUE(seen_.Save().ok());
  dir_.Write("seen", "");
  ASSERT_TRUE(seen_.Reload().ok());
  cache_.ReviewSeen();
  Look("192.0.2.1:80");
  ASSERT_TRUE(answer_->ok());
  EXPECT_FALSE((*answer_)->has_value());
}

TEST_F(EndpointCacheTest, RemembersAnswersForARestart) {
  Connect();
  Learn("192.0.2.1:80", Mesh("spiffe://example.org/db"));
  Learn("192.0.2.2:80", Plain());
  EXPECT_EQ(cache_.Remembered(), std::vector<std::string>{"wire of 192.0.2.1:80"});

  EndpointCache next(*loop_, clock_, &seen_);
  next.SetUpstream({[](const auto&) {}, [](const auto&) {}, [] {}});
  next.Restore(Key("192.0.2.1:80"), Mesh("spiffe://example.org/db"), "wire of 192.0.2.1:80");
  EXPECT_EQ(next.Subscriptions(), std::vector<AddressKey>{Key("192.0.2.1:80")});
  bool answered = false;
  next.Lookup(*loop_, At("192.0.2.1:80"),
              [&](const Answer& answer) { answered = answer->has_value(); });
  EXPECT_TRUE(answered);
}

TEST_F(EndpointCacheTest, ForgetsWhatNobodyAsksFor) {
  Connect();
  Learn("192.0.2.1:80", Plain());
  clock_.Advance(absl::Minutes(10));
  Learn("192.0.2.2:80", Plain());
  clock_.Advance(absl::Minutes(6));
  cache_.Sweep();
  EXPECT_EQ(unsubscribed_, std::vector<AddressKey>{Key("192.0.2.1:80")});
  EXPECT_EQ(cache_.size(), 1U);
  // A late answer does not bring it back.
  cache_.OnAnswer(Key("192.0.2.1:80"), Plain(), "");
  EXPECT_EQ(cache_.size(), 1U);
}

TEST_F(EndpointCacheTest, DoesNotForgetWhatSomebodyWaitsFor) {
  Connect();
  Look("192.0.2.1:80");
  RunPosted();
  clock_.Advance(absl::Hours(1));
  cache_.Sweep();
  EXPECT_TRUE(unsubscribed_.empty());
}

TEST_F(EndpointCacheTest, BoundsWhatItKeeps) {
  Connect();
  for (uint32_t i = 0; i < EndpointCache::kMostEntries; ++i) {
    const std::array<uint8_t, 4> bytes{10, static_cast<uint8_t>(i >> 16U),
                                       static_cast<uint8_t>(i >> 8U), static_cast<uint8_t>(i)};
    cache_.Restore({base::IpAddress::FromBytes(bytes).value(), 80}, Plain(), "");
    clock_.Advance(absl::Milliseconds(1));
  }
  Look("192.0.2.1:80");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE(absl::IsUnavailable(answer_->status()));
  RunPosted();
  EXPECT_EQ(unsubscribed_.size(), EndpointCache::kMostEntries / 8);
  Look("192.0.2.1:80");
  EXPECT_FALSE(answer_.has_value());  // being asked for
}

TEST_F(EndpointCacheTest, KnowsMeshMembersByAddress) {
  Connect();
  const auto client = At("192.0.2.1:0").ip();
  EXPECT_FALSE(cache_.IsMeshMember(client));
  EXPECT_FALSE(cache_.IsMeshMember(client));
  RunPosted();
  // Asked about in the background, once, for any port.
  EXPECT_EQ(subscribed_, (std::vector<AddressKey>{{client, 0}}));
  cache_.OnAnswer({client, 0}, Mesh("spiffe://example.org/web"), "");
  EXPECT_TRUE(cache_.IsMeshMember(client));
  // Who is only known as a client was never a destination.
  EXPECT_EQ(seen_.size(), 0U);
  cache_.OnAnswer({client, 0}, Plain(), "");
  EXPECT_FALSE(cache_.IsMeshMember(client));
}

// A worker that looks up fifty destinations and gives some of them up.
int LookUpFifty(EndpointCache& cache, int worker) {
  const auto loop = net::Loop::Create().value();
  std::vector<std::unique_ptr<EndpointDirectory::Query>> queries;
  int settled = 0;
  for (uint16_t port = 1; port <= 50; ++port) {
    const net::SocketAddress to(base::IpAddress::Parse("192.0.2.1").value(), port);
    queries.push_back(cache.Lookup(*loop, to, [&](const Answer&) {
      EXPECT_TRUE(loop->IsInLoopThread());
      ++settled;
    }));
    if (port % 10 == worker && queries.back() != nullptr) {
      queries.pop_back();
      ++settled;
    }
  }
  EXPECT_TRUE(testing::RunUntil(*loop, [&] { return settled == 50; }));
  queries.clear();
  return settled;
}

TEST_F(EndpointCacheTest, AnswersWorkersOnTheirOwnLoops) {
  Connect();
  constexpr int kWorkers = 3;
  std::atomic<int> settled{0};
  std::vector<std::thread> threads;
  for (int worker = 0; worker < kWorkers; ++worker) {
    threads.emplace_back([&settled, worker, this] { settled += LookUpFifty(cache_, worker); });
  }
  EXPECT_TRUE(testing::RunUntil(*loop_, [&] {
    for (const AddressKey& key : std::exchange(subscribed_, {})) {
      cache_.OnAnswer(key, Plain(), "");
    }
    return settled == kWorkers * 50;
  }));
  for (auto& thread : threads) {
    thread.join();
  }
}

TEST_F(EndpointCacheTest, SaysWhetherItIsStillAskingAboutAClient) {
  Connect();
  const auto client = base::IpAddress::Parse("198.18.0.9").value();
  EXPECT_FALSE(cache_.AwaitsAnswer(client)) << "nobody has asked";
  EXPECT_FALSE(cache_.IsMeshMember(client));
  EXPECT_TRUE(cache_.AwaitsAnswer(client));
  RunPosted();
  cache_.OnAnswer({client, 0}, Plain(), "");
  EXPECT_FALSE(cache_.AwaitsAnswer(client)) << "it is none of the mesh";
}

constexpr char kStatic[] =
    "apiVersion: postern.dev/v1\nkind: Destination\nmetadata: {name: db}\n"
    "spec: {addresses: [192.0.2.0/24], spiffeIds: ['spiffe://td/db']}\n";

// With an issuer and without one.
TEST_F(EndpointCacheTest, AStaticDestinationThatWasAskedForDoesNotFallBackWhenItIsTakenOut) {
  const auto destinations = std::make_shared<const config::DestinationSet>(
      config::DestinationSet::FromYaml(kStatic, "d.yaml").value());
  cache_.SetStatic(destinations);
  Look("192.0.2.7:80");
  ASSERT_TRUE(answer_.has_value() && answer_->ok() && answer_->value().has_value());
  RunPosted();
  EXPECT_TRUE(seen_.Contains(Key("192.0.2.7:80")));
  cache_.SetStatic(nullptr);
  Look("192.0.2.7:80");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE(absl::IsFailedPrecondition(answer_->status())) << answer_->status();
  Look("192.0.2.8:80");
  EXPECT_TRUE(answer_->ok()) << "it was never asked for";
  Connect();
  Learn("192.0.2.7:80", Plain());
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE(absl::IsFailedPrecondition(answer_->status())) << answer_->status();
  ASSERT_TRUE(seen_.Forget(Key("192.0.2.7:80")).ok());
  cache_.ReviewSeen();
  Look("192.0.2.7:80");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE(answer_->ok()) << answer_->status();
}

TEST_F(EndpointCacheTest, ANameThatLedIntoTheMeshIsRememberedUntilItIsForgotten) {
  EXPECT_FALSE(cache_.WasInMesh("db.example.org", 5432));
  cache_.NoteName("db.example.org", 5432);
  EXPECT_TRUE(cache_.WasInMesh("db.example.org", 5432)) << "at once";
  RunPosted();
  EXPECT_TRUE(seen_.Contains(NameKey{"db.example.org", 5432}));
  EXPECT_FALSE(cache_.WasInMesh("db.example.org", 5433));
  EXPECT_FALSE(cache_.WasInMesh("example.org", 5432));
  ASSERT_TRUE(seen_.Save().ok());

  SeenList of_file(dir_.Path("seen"));
  ASSERT_TRUE(of_file.Reload().ok());
  EndpointCache next(*loop_, clock_, &of_file);
  next.ReviewSeen();
  EXPECT_TRUE(next.WasInMesh("db.example.org", 5432)) << "in the next process";

  ASSERT_TRUE(seen_.Forget(NameKey{"db.example.org", 5432}).ok());
  cache_.ReviewSeen();
  EXPECT_FALSE(cache_.WasInMesh("db.example.org", 5432));
}

TEST_F(EndpointCacheTest, ANameThatIsNotRememberedForWantOfRoomIsSaid) {
  for (size_t i = 0; i < SeenList::kMostNames; ++i) {
    cache_.NoteName("n" + std::to_string(i) + ".test", 80);
  }
  RunPosted();
  ASSERT_EQ(seen_.size(), SeenList::kMostNames);
  EXPECT_FALSE(seen_.is_full());
  cache_.NoteName("n0.test", 80);
  RunPosted();
  EXPECT_FALSE(seen_.is_full()) << "it is known";
  cache_.NoteName("more.test", 80);
  RunPosted();
  EXPECT_TRUE(seen_.is_full());
  EXPECT_FALSE(cache_.WasInMesh("more.test", 80));
}

TEST_F(EndpointCacheTest, WhatWasJustSeenOutlivesAReviewOfTheList) {
  cache_.SetStatic(std::make_shared<const config::DestinationSet>(
      config::DestinationSet::FromYaml(kStatic, "d.yaml").value()));
  Look("192.0.2.7:80");
  cache_.NoteName("db.example.org", 5432);
  cache_.ReviewSeen();  // before the main loop has heard of them
  RunPosted();
  cache_.SetStatic(nullptr);
  Look("192.0.2.7:80");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE(absl::IsFailedPrecondition(answer_->status())) << answer_->status();
  EXPECT_TRUE(cache_.WasInMesh("db.example.org", 5432));
}

// What a former process has seen counts from the start.
TEST_F(EndpointCacheTest, TheListOfAFormerProcessCountsWithoutAnIssuerToo) {
  seen_.Add(Key("192.0.2.7:80"));
  cache_.ReviewSeen();
  Look("192.0.2.7:80");
  ASSERT_TRUE(answer_.has_value());
  EXPECT_TRUE(absl::IsFailedPrecondition(answer_->status())) << answer_->status();
}

}  // namespace
}  // namespace postern::identity
