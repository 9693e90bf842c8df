// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/dns_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/testing/dns_server.h"
#include "tests/testing/temp_dir.h"
#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

using postern::testing::DnsServer;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class DnsClientTest : public ::testing::Test {
 protected:
  DnsClientTest() {
    options_.servers = {Loopback(server_.port())};
    options_.search = {"search.example"};
    options_.timeout = seconds(5);
    options_.tries = 2;
  }
  DnsAnswer Ask(const std::string& name) {
    if (client_ == nullptr) {
      client_ = std::make_unique<DnsClient>(*loop_, options_);
    }
    std::optional<DnsAnswer> got;
    client_->Ask(name, [&](DnsAnswer answer) { got = std::move(answer); });
    EXPECT_TRUE(RunUntil(*loop_, [&] { return got.has_value(); })) << name;
    return got.value_or(DnsAnswer{});
  }
  static std::vector<std::string> Texts(const DnsAnswer& answer) {
    std::vector<std::string> texts;
    for (const base::IpAddress& ip : answer.addresses) {
      texts.push_back(ip.ToString());
    }
    return texts;
  }

  DnsServer server_;
  const std::unique_ptr<Loop> loop_ = Loop::Create().value();
  DnsClient::Options options_;
  std::unique_ptr<DnsClient> client_;
};

TEST_F(DnsClientTest, FindsBothFamiliesAndTheirTtl) {
  server_.Set("db.example", {"192.0.2.1", "192.0.2.2", "2001:db8::1"}, 77);
  const DnsAnswer answer = Ask("db.example");
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_THAT(Texts(answer), UnorderedElementsAre("192.0.2.1", "192.0.2.2", "2001:db8::1"));
  EXPECT_EQ(answer.ttl, seconds(77));
}

TEST_F(DnsClientTest, TellsWhatDoesNotExistFromWhatNobodyCouldSay) {
  EXPECT_TRUE(absl::IsNotFound(Ask("nowhere.example.").status));
  server_.Set("bare.example", {}, 60);
  EXPECT_TRUE(absl::IsNotFound(Ask("bare.example.").status)) << "a name without an address";
  server_.SetMood(DnsServer::Mood::kFails);
  const DnsAnswer failed = Ask("db.example.");
  EXPECT_TRUE(absl::IsUnavailable(failed.status)) << failed.status;
  EXPECT_THAT(std::string(failed.status.message()), HasSubstr("db.example"));
}

TEST_F(DnsClientTest, GivesUpOnAServerThatSaysNothing) {
  options_.timeout = milliseconds(100);
  server_.SetMood(DnsServer::Mood::kSilent);
  EXPECT_TRUE(absl::IsUnavailable(Ask("db.example.").status));
  EXPECT_GE(server_.questions(), 2);
}

TEST_F(DnsClientTest, TriesTheSearchDomainsUnlessTheNameEndsInADot) {
  server_.Set("db.search.example", {"192.0.2.5"}, 60);
  EXPECT_THAT(Texts(Ask("db")), ElementsAre("192.0.2.5"));
  EXPECT_TRUE(absl::IsNotFound(Ask("db.").status));
}

TEST_F(DnsClientTest, ReadsTheHostsFile) {
  const DnsAnswer answer = Ask("localhost");
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  for (const base::IpAddress& ip : answer.addresses) {
    EXPECT_TRUE(ip.IsLoopback()) << ip.ToString();
  }
  EXPECT_EQ(server_.questions(), 0);
}

TEST_F(DnsClientTest, AsksNobodyForInvalidNames) {
  EXPECT_TRUE(absl::IsNotFound(Ask("nowhere.invalid").status));
  EXPECT_EQ(server_.questions(), 0);
}

TEST_F(DnsClientTest, ReadsItsConfigurationAgainWhenThatHasChanged) {
  postern::testing::TempDir directory;
  options_.resolv_conf = directory.Path("resolv.conf");
  std::ofstream(options_.resolv_conf) << "# one\n";
  server_.Set("db.example", {"192.0.2.1"}, 60);
  EXPECT_TRUE(Ask("db.example").status.ok());
  std::ofstream(options_.resolv_conf) << "# another one\n";
  EXPECT_TRUE(Ask("db.example").status.ok());
}

TEST_F(DnsClientTest, CallsNobodyBackOnceDestroyed) {
  server_.SetMood(DnsServer::Mood::kSilent);
  auto client = std::make_unique<DnsClient>(*loop_, options_);
  client->Ask("db.example", [](const DnsAnswer&) { FAIL(); });
  RunFor(*loop_, milliseconds(20));
  client.reset();
  RunFor(*loop_, milliseconds(20));
  EXPECT_EQ(loop_->OpenHandles(), 0U);
}

}  // namespace
}  // namespace postern::net
