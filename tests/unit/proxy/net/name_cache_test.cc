// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/name_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

DnsAnswer Found(const std::vector<std::string>& addresses, seconds ttl) {
  DnsAnswer answer;
  for (const std::string& text : addresses) {
    answer.addresses.push_back(base::IpAddress::Parse(text).value());
  }
  answer.ttl = ttl;
  return answer;
}

const DnsAnswer kNobody{absl::UnavailableError("nobody could say"), {}, seconds(0)};
const DnsAnswer kNoSuch{absl::NotFoundError("no such name"), {}, seconds(0)};

// A name service that answers when the test says so, or at once.
class NameCacheTest : public ::testing::Test {
 protected:
  NameCacheTest()
      : cache_(
            *loop_,
            [this](const std::string& name, DnsClient::Done done) {
              asked_.push_back(name);
              if (at_once_.has_value()) {
                done(*at_once_);
              } else {
                open_.push_back(std::move(done));
              }
            },
            [this](NameEvent event) { ++events_[event]; }) {}

  // Asks, and remembers what is answered in `got_`, by the order of asking.
  std::unique_ptr<NameCache::Query> Ask(const std::string& name = "db.example") {
    const size_t at = got_.size();
    got_.emplace_back("");
    return cache_.Lookup(name, [this, at](const absl::StatusOr<NameCache::Addresses>& answer) {
      got_[at] = answer.ok() ? answer->front().ToString() : std::string(answer.status().message());
    });
  }
  void Answer(const DnsAnswer& answer) {
    const DnsClient::Done done = std::move(open_.front());
    open_.erase(open_.begin());
    done(answer);
  }

  const std::unique_ptr<Loop> loop_ = Loop::Create().value();
  std::vector<std::string> asked_, got_;
  std::vector<DnsClient::Done> open_;
  std::optional<DnsAnswer> at_once_;
  std::map<NameEvent, int> events_;
  NameCache cache_;
};

TEST_F(NameCacheTest, AsksOnceForManyWhoWait) {
  const auto one = Ask();
  const auto two = Ask("DB.Example");
  ASSERT_NE(one, nullptr);
  EXPECT_EQ(asked_.size(), 1U);
  Answer(Found({"192.0.2.1"}, seconds(60)));
  EXPECT_THAT(got_, ElementsAre("192.0.2.1", "192.0.2.1"));
  EXPECT_EQ(Ask(), nullptr) << "known, so answered inside";
  EXPECT_EQ(got_.back(), "192.0.2.1");
  EXPECT_EQ(asked_.size(), 1U);
  EXPECT_EQ(events_[NameEvent::kResolved], 1);
}

TEST_F(NameCacheTest, TakesAnAnswerThatComesAtOnce) {
  at_once_ = Found({"127.0.0.1"}, seconds(0));
  EXPECT_EQ(Ask(), nullptr);
  EXPECT_EQ(got_.back(), "127.0.0.1");
}

TEST_F(NameCacheTest, KeepsTheFinalDotApart) {
  at_once_ = Found({"127.0.0.1"}, seconds(60));
  Ask("db.example");
  Ask("db.example.");
  EXPECT_THAT(asked_, ElementsAre("db.example", "db.example."));
}

TEST_F(NameCacheTest, AsksAgainWhenTheTtlHasPassedAndNotBefore) {
  at_once_ = Found({"192.0.2.1"}, seconds(1));
  Ask();
  at_once_ = Found({"192.0.2.2"}, seconds(1));
  RunFor(*loop_, milliseconds(20));
  Ask();
  EXPECT_EQ(got_.back(), "192.0.2.1");
  RunFor(*loop_, milliseconds(1050));
  Ask();
  EXPECT_EQ(got_.back(), "192.0.2.2");
  EXPECT_EQ(asked_.size(), 2U);
}

TEST_F(NameCacheTest, CountsATtlOfZeroAsASecond) {
  at_once_ = Found({"192.0.2.1"}, seconds(0));
  Ask();
  Ask();
  EXPECT_EQ(asked_.size(), 1U);
}

TEST_F(NameCacheTest, KeepsTheLastGoodAnswerWhileResolvingFails) {
  at_once_ = Found({"192.0.2.1"}, seconds(1));
  Ask();
  RunFor(*loop_, milliseconds(1050));
  at_once_ = kNobody;
  Ask();
  EXPECT_EQ(got_.back(), "192.0.2.1");
  EXPECT_EQ(events_[NameEvent::kFailed], 1);
  Ask();
  EXPECT_EQ(got_.back(), "192.0.2.1");
  EXPECT_EQ(asked_.size(), 2U) << "a failure is not repeated at once";
  EXPECT_EQ(events_[NameEvent::kStale], 2);
  at_once_ = Found({"192.0.2.9"}, seconds(60));
  RunFor(*loop_, milliseconds(1050));
  Ask();
  EXPECT_EQ(got_.back(), "192.0.2.9");
}

TEST_F(NameCacheTest, WaitsForAFreshAnswerOnlySoLongWhereThereIsAnOlderOne) {
  at_once_ = Found({"192.0.2.1"}, seconds(1));
  Ask();
  at_once_.reset();
  RunFor(*loop_, milliseconds(1050));
  const auto waits = Ask();
  ASSERT_NE(waits, nullptr);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return !got_.back().empty(); }));
  EXPECT_EQ(got_.back(), "192.0.2.1");
  EXPECT_EQ(events_[NameEvent::kStale], 1);
  Answer(Found({"192.0.2.2"}, seconds(60)));  // late, and still of use
  Ask();
  EXPECT_EQ(got_.back(), "192.0.2.2");
}

TEST_F(NameCacheTest, ThatANameIsGoneIsAnAnswer) {
  at_once_ = Found({"192.0.2.1"}, seconds(1));
  Ask();
  RunFor(*loop_, milliseconds(1050));
  at_once_ = kNoSuch;
  Ask();
  EXPECT_EQ(got_.back(), "no such name");
  Ask();
  EXPECT_EQ(got_.back(), "no such name");
  EXPECT_EQ(asked_.size(), 2U) << "remembered for a while";
}

TEST_F(NameCacheTest, TellsAFailureWhereThereIsNothingOlder) {
  at_once_ = kNobody;
  Ask();
  EXPECT_EQ(got_.back(), "nobody could say");
}

TEST_F(NameCacheTest, WhoIsGoneIsNotTold) {
  auto gone = Ask();
  const auto stays = Ask();
  gone.reset();
  Answer(Found({"192.0.2.1"}, seconds(60)));
  EXPECT_THAT(got_, ElementsAre("", "192.0.2.1"));
}

TEST_F(NameCacheTest, WhoIsToldMayCancelTheOthers) {
  std::unique_ptr<NameCache::Query> second;
  const auto first = cache_.Lookup("db.example", [&](const absl::StatusOr<NameCache::Addresses>&) {
    got_.emplace_back("first");
    second.reset();
  });
  second = Ask();
  Answer(Found({"192.0.2.1"}, seconds(60)));
  EXPECT_THAT(got_, ElementsAre("", "first"));
}

TEST_F(NameCacheTest, HoldsNoMoreNamesThanItsLimit) {
  at_once_ = Found({"192.0.2.1"}, seconds(60));
  for (size_t i = 0; i < NameCache::kMostNames + 10; ++i) {
    Ask("n" + std::to_string(i));
  }
  EXPECT_EQ(cache_.size(), NameCache::kMostNames);
}

TEST_F(NameCacheTest, RefusesWhenAllThatItHoldsIsStillAsked) {
  std::vector<std::unique_ptr<NameCache::Query>> waiting;
  for (size_t i = 0; i < NameCache::kMostNames; ++i) {
    waiting.push_back(Ask("n" + std::to_string(i)));
  }
  EXPECT_EQ(Ask("one-more"), nullptr);
  EXPECT_EQ(got_.back(), "too many names are being resolved");
  EXPECT_EQ(cache_.size(), NameCache::kMostNames);
}

TEST_F(NameCacheTest, AnAnswerAfterItsEndIsNobodys) {
  auto cache = std::make_unique<NameCache>(
      *loop_,
      [this](const std::string&, DnsClient::Done done) { open_.push_back(std::move(done)); },
      nullptr);
  auto query = cache->Lookup("db", [](const absl::StatusOr<NameCache::Addresses>&) { FAIL(); });
  cache.reset();
  Answer(Found({"192.0.2.1"}, seconds(60)));
  query.reset();
}

}  // namespace
}  // namespace postern::net
