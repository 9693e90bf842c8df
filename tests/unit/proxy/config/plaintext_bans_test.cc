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
  EXPECT_FALSE(bans.CoversName("db.example.org"));
  EXPECT_EQ(bans.Show(), (std::vector<std::string>{"10.0.0.0/8", "2001:db8::7/128"}));
}

TEST(PlaintextBansTest, AllCoversEverything) {
  PlaintextBans bans;
  ASSERT_TRUE(bans.Add("all").ok());
  EXPECT_TRUE(bans.Covers(Ip("192.0.2.1")));
  EXPECT_TRUE(bans.Covers(Ip("::1")));
  EXPECT_TRUE(bans.CoversName("db.example.org"));
  EXPECT_EQ(bans.Show(), (std::vector<std::string>{"all"}));
}

TEST(PlaintextBansTest, CoversANameInAnySpelling) {
  PlaintextBans bans;
  ASSERT_TRUE(bans.Add("DB.example.org.").ok());
  ASSERT_TRUE(bans.Add("db").ok());
  for (const std::string_view name : {"db.example.org", "Db.Example.ORG.", "db"}) {
    EXPECT_TRUE(bans.CoversName(name)) << name;
  }
  for (const std::string_view name :
       {"example.org", "a.db.example.org", "xdb.example.org", "db.example.org.test", "d", ""}) {
    EXPECT_FALSE(bans.CoversName(name)) << name;
  }
  EXPECT_FALSE(bans.Covers(Ip("10.0.0.1"))) << "a name is no address";
  EXPECT_EQ(bans.Show(), (std::vector<std::string>{"db.example.org", "db"}));
}

TEST(PlaintextBansTest, AWildcardCoversWhatIsBelowItsName) {
  PlaintextBans bans;
  ASSERT_TRUE(bans.Add("*.Example.org").ok());
  ASSERT_TRUE(bans.Add("10.0.0.0/8").ok());
  for (const std::string_view name : {"db.example.org", "a.b.example.org.", "DB.EXAMPLE.ORG"}) {
    EXPECT_TRUE(bans.CoversName(name)) << name;
  }
  for (const std::string_view name : {"example.org", "dbexample.org", "db.example.com", "org"}) {
    EXPECT_FALSE(bans.CoversName(name)) << name;
  }
  EXPECT_EQ(bans.Show(), (std::vector<std::string>{"10.0.0.0/8", "*.example.org"}));
  PlaintextBans again;
  for (const std::string& text : bans.Show()) {
    EXPECT_TRUE(again.Add(text).ok()) << text;
  }
  EXPECT_EQ(again.Show(), bans.Show());
}

TEST(PlaintextBansTest, RefusesWhatIsNeither) {
  for (const std::string_view text :
       {"", "ALL", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "db.example.org:5432", "*", "*.",
        "*.*.org", "db.*.org", "*db.example.org", "db..example.org", "db.5", "*.10.0.0.1",
        "db example", "[::1]"}) {
    PlaintextBans bans;
    const absl::Status refused = bans.Add(text);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << text;
    EXPECT_FALSE(bans.Covers(Ip("10.0.0.1"))) << text;
    EXPECT_TRUE(bans.Show().empty()) << text;
  }
}

}  // namespace
}  // namespace postern::config
