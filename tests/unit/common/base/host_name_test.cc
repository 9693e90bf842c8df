// SPDX-License-Identifier: Apache-2.0
#include "common/base/host_name.h"

#include <gtest/gtest.h>

#include <string>

namespace postern::base {
namespace {

TEST(HostNameTest, TellsNamesFromWhatIsNone) {
  for (const char* name :
       {"db", "db.example.org", "_tcp.DB-1.example", "a1", "1a.b2", "xn--bcher-kva.example"}) {
    EXPECT_TRUE(IsHostName(name)) << name;
  }
  for (const char* other : {"", ".", "a.", ".a", "a..b", "a b", "a/b", "a:1", "192.0.2.1", "1",
                            "a.1", "2130706433", "b\xc3\xbc", "[::1]", "*", "a\n"}) {
    EXPECT_FALSE(IsHostName(other)) << other;
  }
  EXPECT_FALSE(IsHostName(std::string_view("a\0b", 3)));
}

TEST(HostNameTest, BoundsLabelsAndTheWhole) {
  const std::string label(63, 'a');
  EXPECT_TRUE(IsHostName(label));
  EXPECT_FALSE(IsHostName(label + "a"));
  const std::string whole = label + "." + label + "." + label + "." + std::string(61, 'b');
  EXPECT_EQ(whole.size(), 253U);
  EXPECT_TRUE(IsHostName(whole));
  EXPECT_FALSE(IsHostName(whole + "b"));
}

TEST(HostNameTest, HasOneSpelling) {
  EXPECT_EQ(CanonicalHostName("DB.Example.ORG."), "db.example.org");
  EXPECT_EQ(CanonicalHostName("db"), "db");
  EXPECT_EQ(CanonicalHostName("."), "");
  EXPECT_EQ(CanonicalHostName(""), "");
}

}  // namespace
}  // namespace postern::base
