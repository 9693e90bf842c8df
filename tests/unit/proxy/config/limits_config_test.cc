// SPDX-License-Identifier: Apache-2.0
// The knobs of the limits for sources.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proxy/config/proxy_config.h"

namespace postern::config {
namespace {

using testing::HasSubstr;

ParseOutcome Parse(const std::vector<std::string>& more) {
  std::vector<std::string> words = {"postern-proxy", "--svid",    "a.pem", "--svid-key",
                                    "a.key",         "--bundle",  "b.pem", "--intercept",
                                    "redirect",      "--workers", "1"};
  words.insert(words.end(), more.begin(), more.end());
  std::vector<const char*> argv;
  for (const std::string& word : words) {
    argv.push_back(word.c_str());
  }
  return ParseProxyConfig(static_cast<int>(argv.size()), argv.data());
}

std::string Refusal(const std::vector<std::string>& more) {
  const ParseOutcome outcome = Parse(more);
  return outcome.exit.has_value() ? outcome.exit->text : "accepted";
}

TEST(LimitsConfigTest, NothingIsLimitedUnlessItIsAskedFor) {
  const ParseOutcome outcome = Parse({});
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  EXPECT_EQ(outcome.config->max_handshakes, 0U);
  EXPECT_EQ(outcome.config->max_handshakes_per_source, 0U);
  EXPECT_EQ(outcome.config->max_connections_per_source, 0U);
  EXPECT_EQ(outcome.config->max_rate_per_source, 0U);
  EXPECT_EQ(outcome.config->max_connections_per_peer, 0U);
}

TEST(LimitsConfigTest, ReadsEachLimit) {
  const ParseOutcome outcome = Parse({"--max-handshakes", "1", "--max-handshakes-per-source", "2",
                                      "--max-connections-per-source", "3", "--max-rate-per-source",
                                      "4", "--max-connections-per-peer", "5"});
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  EXPECT_EQ(outcome.config->max_handshakes, 1U);
  EXPECT_EQ(outcome.config->max_handshakes_per_source, 2U);
  EXPECT_EQ(outcome.config->max_connections_per_source, 3U);
  EXPECT_EQ(outcome.config->max_rate_per_source, 4U);
  EXPECT_EQ(outcome.config->max_connections_per_peer, 5U);
}

TEST(LimitsConfigTest, RefusesWhatIsNoLimit) {
  EXPECT_THAT(Refusal({"--max-rate-per-source", "-1"}),
              HasSubstr("--max-rate-per-source: '-1' is no number from 0 to 100000"));
  EXPECT_THAT(Refusal({"--max-handshakes", "many"}), HasSubstr("--max-handshakes: 'many' is no"));
}

}  // namespace
}  // namespace postern::config
