// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/strings.h"

namespace postern::intercept {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

json Rule(std::string_view chain, std::string_view comment, const std::vector<json>& expr) {
  return {{"rule",
           {{"family", "inet"},
            {"table", "postern"},
            {"chain", chain},
            {"handle", 7},
            {"comment", comment},
            {"expr", expr}}}};
}

const json kReturn = {{"return", nullptr}};
const json kDrop = {{"drop", nullptr}};

std::string Listing(const std::vector<json>& rules, int priority = 0) {
  json all = json::array({{{"metainfo", {{"version", "1.0.6"}}}},
                          {{"chain",
                            {{"table", "postern"},
                             {"name", "c"},
                             {"type", "filter"},
                             {"hook", "output"},
                             {"prio", priority},
                             {"policy", "accept"}}}}});
  for (const json& rule : rules) {
    all.push_back(rule);
  }
  return json({{"nftables", all}}).dump();
}

std::vector<std::string> Diff(const std::string& wanted, const std::string& found,
                              Depth depth = Depth::kContents) {
  return DiffListings(wanted, found, "", depth).value();
}

TEST(DiffListingsTest, FindsNothingWhereOnlyCountsAndHandlesDiffer) {
  json counted = {{"counter", {{"packets", 7}, {"bytes", 420}}}};
  json fresh = {{"counter", {{"packets", 0}, {"bytes", 0}}}};
  json found = Rule("c", "a", {counted, kDrop});
  found["rule"]["handle"] = 99;
  EXPECT_THAT(Diff(Listing({Rule("c", "a", {fresh, kDrop})}), Listing({found})), IsEmpty());
}

TEST(DiffListingsTest, TellsWhatIsMissingAndWhatIsForeign) {
  const json one = Rule("c", "one", {kReturn});
  const json two = Rule("c", "two", {kDrop});
  const json alien = Rule("c", "alien", {json({{"accept", nullptr}})});
  EXPECT_THAT(Diff(Listing({one, two}), Listing({one})),
              ElementsAre(HasSubstr("- chain c: 'two'")));
  EXPECT_THAT(Diff(Listing({one}), Listing({alien, one})),
              ElementsAre(HasSubstr("+ chain c: 'alien'")));
  EXPECT_THAT(Diff(Listing({one, two}), Listing({two, one})),
              ElementsAre(HasSubstr("'"), HasSubstr("'")))
      << "order is part of it";
}

TEST(DiffListingsTest, FindsARuleThatSaysSomethingElseUnderTheSameName) {
  const std::string wanted = Listing({Rule("c", "closed", {kDrop})});
  const std::string found = Listing({Rule("c", "closed", {json({{"accept", nullptr}})})});
  EXPECT_THAT(Diff(wanted, found), ElementsAre(HasSubstr("drop"), HasSubstr("accept")));
  EXPECT_THAT(Diff(wanted, found, Depth::kComments), IsEmpty());
}

TEST(DiffListingsTest, FindsAChainThatIsHookedInElsewhere) {
  EXPECT_THAT(Diff(Listing({}, 0), Listing({}, 300)),
              ElementsAre(HasSubstr("priority 0"), HasSubstr("priority 300")));
}

TEST(DiffListingsTest, PassesOverOtherTables) {
  json other = Rule("c", "x", {kDrop});
  other["rule"]["table"] = "postern_db";
  EXPECT_THAT(Diff(Listing({}), Listing({other})), IsEmpty());
}

TEST(DiffListingsTest, RefusesWhatIsNotNftsJson) {
  EXPECT_FALSE(DiffListings("{}", Listing({}), "", Depth::kContents).ok());
  EXPECT_FALSE(DiffListings(Listing({}), "", "", Depth::kContents).ok());
}

}  // namespace
}  // namespace postern::intercept
