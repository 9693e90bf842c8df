// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/plaintext_bans.h"

#include <gtest/gtest.h>

namespace postern::config {
namespace {

base::IpAddress Ip(std::string_view text) {
  return base::IpAddress::Parse(text).value();
}

TEST(PlaintextBansTest, CoversTheRangesAndNothingElse) {
  PlaintextBans bans;
  EXPECT_FALSE(bans.Covers(Ip("10.1.2.3")));
  ASSERT_TRUE(bans.Add("10.0.0.0/8").ok());
  ASSERT_TRUE(bans.Add("2001:db8::7").ok());
  EXPECT_TRUE(bans.Covers(Ip("10.1.2.3")));
  EXPECT_TRUE(bans.Covers(Ip("::ffff:10.1.2.3"))) << "the same host";
  EXPECT_FALSE(bans.Covers(Ip("11.0.0.1")));
  EXPECT_TRUE(bans.Covers(Ip("2001:db8::7")));
  EXPECT_FALSE(bans.Covers(Ip("2001:db8::8")));
  EXPECT_FALSE(bans.CoversEveryName());
  EXPECT_EQ(bans.Show(), (std::vector<std::string>{"10.0.0.0/8", "2001:db8::7/128"}));
}

TEST(PlaintextBansTest, AllCoversEverything) {
  PlaintextBans bans;
  ASSERT_TRUE(bans.Add("all").ok());
  EXPECT_TRUE(bans.Covers(Ip("192.0.2.1")));
  EXPECT_TRUE(bans.Covers(Ip("::1")));
  EXPECT_TRUE(bans.CoversEveryName());
  EXPECT_EQ(bans.Show(), (std::vector<std::string>{"all"}));
}

TEST(PlaintextBansTest, RefusesWhatIsNoRange) {
  for (const std::string_view text : {"", "ALL", "10.0.0.1/8", "db.example.org", "10.0.0.0/33"}) {
    PlaintextBans bans;
    EXPECT_TRUE(absl::IsInvalidArgument(bans.Add(text))) << text;
    EXPECT_FALSE(bans.Covers(Ip("10.0.0.1"))) << text;
  }
}

}  // namespace
}  // namespace postern::config
