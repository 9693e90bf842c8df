// SPDX-License-Identifier: Apache-2.0
// The knobs of the limits for sources.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/proxy/config/parse_arguments.h"

namespace postern::config {
namespace {

using testing::HasSubstr;

TEST(LimitsConfigTest, NothingIsLimitedUnlessItIsAskedFor) {
  const ParseOutcome outcome = Parse(Plus(kRedirect, {}));
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  EXPECT_EQ(outcome.config->max_handshakes, 0U);
  EXPECT_EQ(outcome.config->max_handshakes_per_source, 0U);
  EXPECT_EQ(outcome.config->max_connections_per_source, 0U);
  EXPECT_EQ(outcome.config->max_rate_per_source, 0U);
  EXPECT_EQ(outcome.config->max_connections_per_peer, 0U);
}

TEST(LimitsConfigTest, ReadsEachLimit) {
  const ParseOutcome outcome =
      Parse(Plus(kRedirect, {"--max-handshakes", "1", "--max-handshakes-per-source", "2",
                             "--max-connections-per-source", "3", "--max-rate-per-source", "4",
                             "--max-connections-per-peer", "5"}));
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  EXPECT_EQ(outcome.config->max_handshakes, 1U);
  EXPECT_EQ(outcome.config->max_handshakes_per_source, 2U);
  EXPECT_EQ(outcome.config->max_connections_per_source, 3U);
  EXPECT_EQ(outcome.config->max_rate_per_source, 4U);
  EXPECT_EQ(outcome.config->max_connections_per_peer, 5U);
}

TEST(LimitsConfigTest, RefusesWhatIsNoLimit) {
  EXPECT_THAT(Refusal(Plus(kRedirect, {"--max-rate-per-source", "-1"})),
              HasSubstr("--max-rate-per-source: '-1' is no number from 0 to 100000"));
  EXPECT_THAT(Refusal(Plus(kRedirect, {"--max-handshakes", "many"})),
              HasSubstr("--max-handshakes: 'many' is no"));
}

}  // namespace
}  // namespace postern::config
