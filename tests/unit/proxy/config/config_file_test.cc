// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ConfigFileTest, ReadsKeysAndValues) {
  const auto settings = ParseConfigFile(
      "# a comment\n"
      "admin = \"127.0.0.1:15000\"  # behind a value\n"
      "\n"
      "workers=4\r\n"
      "\"mark\" = 0x10\n"
      "max-connections = 10_000\n"
      "policy = 'C:\\no\\escape'\n"
      "resumption = false\n"
      "tunnel = [\n"
      "  \"a,b\", # first\n"
      "  'c # d',\n"
      "]\n"
      "port-mode = []\n"
      "log-level = \"a\\\"b\\\\c\\n\"",
      "f");
  ASSERT_TRUE(settings.ok()) << settings.status();
  ASSERT_EQ(settings->size(), 9u);
  EXPECT_EQ((*settings)[0].key, "admin");
  EXPECT_EQ((*settings)[0].line, 2);
  EXPECT_THAT((*settings)[0].values, ElementsAre("127.0.0.1:15000"));
  EXPECT_THAT((*settings)[1].values, ElementsAre("4"));
  EXPECT_THAT((*settings)[2].values, ElementsAre("0x10"));
  EXPECT_THAT((*settings)[3].values, ElementsAre("10000"));
  EXPECT_THAT((*settings)[4].values, ElementsAre("C:\\no\\escape"));
  EXPECT_THAT((*settings)[5].values, ElementsAre("false"));
  EXPECT_THAT((*settings)[6].values, ElementsAre("a,b", "c # d"));
  EXPECT_TRUE((*settings)[7].values.empty());
  EXPECT_EQ((*settings)[8].line, 14);
  EXPECT_THAT((*settings)[8].values, ElementsAre("a\"b\\c\n"));
}

TEST(ConfigFileTest, NamesFileAndLineOfAFault) {
  struct Row {
    std::string text, expected;
  };
  const std::vector<Row> rows = {
      {"[proxy]\n", "f:1: tables are not used"},
      {"\nadmin\n", "f:2: admin: '=' is missing"},
      {"admin = \n", "f:1: admin: '' is no value"},
      {"admin = 127.0.0.1:1\n", "write texts in quotes"},
      {"admin = info\n", "write texts in quotes"},
      {"workers = -1\n", "is no value"},
      {"a = \"x\n", "f:1: the text is not closed"},
      {"a = 'x", "the text is not closed"},
      {"a = \"\"\"x\"\"\"\n", "texts over several lines"},
      {"a = \"\\q\"\n", "unknown escape"},
      {"a = \"x\" y\n", "something follows the value"},
      {"a = [\"x\"\n\n", "separated by ','"},
      {"a = [\"x\",\n", "f:1: a: the list is not closed"},
      {"a = [\"x\" \"y\"]\n", "separated by ','"},
      {"a = [[\"x\"]]\n", "is no value"},
      {"a = {b = 1}\n", "is no value"},
      {"a.b = 1\n", "'=' is missing"},
      {"= 1\n", "a line begins with the name"},
      {"a = 1\na = 2\n", "f:2: a: stands twice"},
      {std::string("\0", 1), "a line begins"},
  };
  for (const Row& row : rows) {
    const auto settings = ParseConfigFile(row.text, "f");
    EXPECT_EQ(settings.status().code(), absl::StatusCode::kInvalidArgument) << row.text;
    EXPECT_THAT(std::string(base::Message(settings.status())), HasSubstr(row.expected)) << row.text;
  }
}

}  // namespace
}  // namespace postern::config
