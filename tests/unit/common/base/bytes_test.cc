// SPDX-License-Identifier: Apache-2.0
#include "common/base/bytes.h"

#include <gtest/gtest.h>

namespace postern::base {
namespace {

using namespace std::string_view_literals;

TEST(HexTest, WritesTwoLowerCaseDigitsForEachByte) {
  EXPECT_EQ(ToHex(AsBytes("\x00\x7f\xff"sv)), "007fff");
  EXPECT_EQ(ToHex({}), "");
}

TEST(HexTest, ReadsBothCases) {
  EXPECT_EQ(*FromHex("00Ff7F"), "\x00\xff\x7f"sv);
  EXPECT_EQ(*FromHex(""), "");
}

TEST(HexTest, RefusesOddLengthAndOtherCharacters) {
  EXPECT_EQ(FromHex("abc").status().code(), absl::StatusCode::kInvalidArgument);
  for (const std::string_view text : {"0g"sv, "g0"sv, " 0"sv, "0x"sv, "-1"sv, "\0\0"sv, "0:"sv}) {
    EXPECT_EQ(FromHex(text).status().code(), absl::StatusCode::kInvalidArgument) << Printable(text);
  }
}

TEST(HexTest, SurvivesAllByteValuesThereAndBack) {
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all.push_back(static_cast<char>(i));
  }
  EXPECT_EQ(*FromHex(ToHex(AsBytes(all))), all);
}

TEST(PrintableTest, EscapesWhatCouldBreakALine) {
  EXPECT_EQ(Printable("a\nb\r\"'\\\x7f\x1b[0m\xc3\xa9\0z"sv),
            R"(a\x0ab\x0d\x22\x27\x5c\x7f\x1b[0m\xc3\xa9\x00z)");
}

TEST(PrintableTest, ShowsNoMoreThanTheLimitAndSaysSo) {
  EXPECT_EQ(Printable("abcdef", 3), "abc...");
  EXPECT_EQ(Printable("abc", 3), "abc");
  EXPECT_EQ(Printable(std::string(10000, 'x')).size(), 259U);
}

TEST(JsonEscapedTest, EscapesQuotesBackslashesAndControls) {
  EXPECT_EQ(JsonEscaped("a\"b\\c\n\r\t\x01\x7f"), R"(a\"b\\c\n\r\t\u0001\u007f)");
  EXPECT_EQ(JsonEscaped("x\0y"sv), R"(x\u0000y)");
}

TEST(JsonEscapedTest, KeepsValidUtf8AndReplacesTheRest) {
  EXPECT_EQ(JsonEscaped("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(JsonEscaped("\xff"), R"(\ufffd)");
  EXPECT_EQ(JsonEscaped("\xc3"), R"(\ufffd)");                      // cut short
  EXPECT_EQ(JsonEscaped("\xc0\xaf"), R"(\ufffd\ufffd)");            // overlong '/'
  EXPECT_EQ(JsonEscaped("\xe0\x80\xaf"), R"(\ufffd\ufffd\ufffd)");  // overlong
  EXPECT_EQ(JsonEscaped("\xed\xa0\x80"), R"(\ufffd\ufffd\ufffd)");  // a surrogate
  EXPECT_EQ(JsonEscaped("\xf4\x90\x80\x80"), R"(\ufffd\ufffd\ufffd\ufffd)");
  EXPECT_EQ(JsonEscaped("\xc3\xa9x\x80"), "\xc3\xa9x\\ufffd");
}

TEST(JsonEscapedTest, EscapesC1ControlsThatTerminalsObey) {
  EXPECT_EQ(JsonEscaped("\xc2\x9b"), R"(\u009b)");
  EXPECT_EQ(JsonEscaped("\xc2\xa0"), "\xc2\xa0");
}

TEST(LineSafeTest, KeepsQuotesAndUtf8ButNoControls) {
  EXPECT_EQ(LineSafe("say \"\xc3\xa9\" \\ it's"), "say \"\xc3\xa9\" \\ it's");
  EXPECT_EQ(LineSafe("a\nb\x1b[31m\xc2\x9b\xff"), R"(a\x0ab\x1b[31m\xc2\x9b\xff)");
}

TEST(LineSafeTest, BoundsWhatComesFromElsewhere) {
  EXPECT_EQ(LineSafe("it's\n", 100), "it's\\x0a");
  EXPECT_EQ(LineSafe(std::string(600, '\''), 512), std::string(512, '\'') + "...");
}

}  // namespace
}  // namespace postern::base
