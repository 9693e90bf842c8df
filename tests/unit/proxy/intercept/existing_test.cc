// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/existing.h"

#include <gtest/gtest.h>

namespace postern::intercept {
namespace {

constexpr std::string_view kHead =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n";

std::string Line(std::string_view peer, std::string_view state, std::string_view uid) {
  return "   0: 0100007F:1F90 " + std::string(peer) + ":9C40 " + std::string(state) +
         " 00000000:00000000 00:00000000 00000000  " + std::string(uid) + "        0 7 1\n";
}

TEST(CountInTableTest, CountsOpenConnectionsToOtherHosts) {
  const std::string table = std::string(kHead) + Line("020012C6", "01", "1000") +
                            Line("00005B00000000000000000002000000", "01", "0");
  EXPECT_EQ(CountInTable(table, InterceptConfig()), 2U);
}

TEST(CountInTableTest, PassesOverLoopbackListenersAndTheProxy) {
  InterceptConfig config;
  config.proxy_uids = {901};
  const std::string table = std::string(kHead) + Line("0100007F", "01", "1000") +
                            Line("00000000000000000000000001000000", "01", "0") +
                            Line("0000000000000000FFFF00000100007F", "01", "0") +
                            Line("00000000", "0A", "0") + Line("020012C6", "06", "0") +
                            Line("020012C6", "01", "901");
  EXPECT_EQ(CountInTable(table, config), 0U);
}

TEST(CountInTableTest, SurvivesAnythingElse) {
  EXPECT_EQ(CountInTable("", InterceptConfig()), 0U);
  EXPECT_EQ(CountInTable("\n\n 1 2 3", InterceptConfig()), 0U);
  EXPECT_EQ(CountInTable(kHead, InterceptConfig()), 0U);
}

}  // namespace
}  // namespace postern::intercept
