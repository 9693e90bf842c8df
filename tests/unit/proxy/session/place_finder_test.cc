// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/place_finder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace postern::session {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

net::DnsAnswer Found(const std::vector<std::string>& addresses) {
  net::DnsAnswer answer;
  for (const std::string& text : addresses) {
    answer.addresses.push_back(base::IpAddress::Parse(text).value());
  }
  answer.ttl = seconds(60);
  return answer;
}

class PlaceFinderTest : public ::testing::Test {
 protected:
  static Place At(const std::string& address) {
    return {net::SocketAddress::Parse(address).value(), ""};
  }
  static Place Named(const std::string& name, uint16_t port) {
    return {net::SocketAddress(base::IpAddress(), port), name};
  }
  void Find(std::vector<Place> places) {
    finder_ = std::make_unique<PlaceFinder>(
        *loop_, names_, std::move(places), [this](absl::StatusOr<std::vector<Candidate>> found) {
          ++calls_;
          status_ = found.status();
          for (const Candidate& candidate : found.value_or(std::vector<Candidate>())) {
            texts_.push_back(candidate.address.ToString());
            ranks_.push_back(candidate.rank);
          }
          finder_.reset();  // inside its own callback
        });
    finder_->Start();
  }
  void Answer(const std::string& name, const net::DnsAnswer& answer) {
    const net::DnsClient::Done done = std::move(asked_[name]);
    done(answer);
  }

  const std::unique_ptr<net::Loop> loop_ = net::Loop::Create().value();
  std::map<std::string, net::DnsClient::Done> asked_;
  net::NameCache names_{*loop_,
                        [this](const std::string& name, net::DnsClient::Done done) {
                          asked_[name] = std::move(done);
                        },
                        nullptr};
  std::unique_ptr<PlaceFinder> finder_;
  int calls_ = 0;
  absl::Status status_;
  std::vector<std::string> texts_;
  std::vector<int> ranks_;
};

TEST_F(PlaceFinderTest, TakesAddressesAsTheyAreAndEachOnce) {
  Find({At("192.0.2.1:80"), At("[2001:db8::1]:80"), At("192.0.2.1:80")});
  EXPECT_THAT(texts_, ElementsAre("192.0.2.1:80", "[2001:db8::1]:80"));
  EXPECT_THAT(ranks_, ElementsAre(0, 0));
}

TEST_F(PlaceFinderTest, PrefersTheFamilyThatANamePrefers) {
  Find({Named("db", 80)});
  EXPECT_EQ(calls_, 0);
  Answer("db", Found({"2001:db8::1", "192.0.2.1", "2001:db8::2"}));
  EXPECT_THAT(texts_, ElementsAre("[2001:db8::1]:80", "192.0.2.1:80", "[2001:db8::2]:80"));
  EXPECT_THAT(ranks_, ElementsAre(0, 1, 0));
}

TEST_F(PlaceFinderTest, DoesWithoutANameThatHasNoAddress) {
  Find({Named("gone", 80), Named("db", 81)});
  Answer("gone", {absl::NotFoundError("no such name"), {}, seconds(0)});
  Answer("db", Found({"192.0.2.1"}));
  EXPECT_THAT(texts_, ElementsAre("192.0.2.1:81"));
}

TEST_F(PlaceFinderTest, FailsWhereNoPlaceHasAnAddress) {
  Find({Named("gone", 80)});
  Answer("gone", {absl::NotFoundError("no such name"), {}, seconds(0)});
  EXPECT_EQ(calls_, 1);
  EXPECT_TRUE(absl::IsNotFound(status_));
}

TEST_F(PlaceFinderTest, WaitsOnlySoLongForTheLastName) {
  Find({Named("late", 80), At("192.0.2.1:80")});
  EXPECT_EQ(calls_, 0);
  net::Timer end(*loop_, [this] { loop_->Stop(); });
  end.Start(PlaceFinder::kPatience + milliseconds(100));
  loop_->Run();
  EXPECT_THAT(texts_, ElementsAre("192.0.2.1:80"));
  Answer("late", Found({"192.0.2.9"}));
  EXPECT_EQ(calls_, 1);
}

TEST_F(PlaceFinderTest, IsQuietOnceDestroyed) {
  Find({Named("db", 80)});
  finder_.reset();
  Answer("db", Found({"192.0.2.1"}));
  EXPECT_EQ(calls_, 0);
}

}  // namespace
}  // namespace postern::session
