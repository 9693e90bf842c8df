// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/nft_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/intercept/rules.h"
#include "tests/unit/proxy/intercept/rendered.h"

namespace postern::intercept {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

InterceptConfig Everything() {
  InterceptConfig config = Guarded();
  config.mode = RuleMode::kTproxy;
  config.fail_closed = true;
  config.proxy_mark = 0x505;
  config.app_cgroups = {{"unified/system.slice/db.service", 2}};
  config.exclude_cgroups = {{"batch.slice", 1}};
  config.exclude_interfaces = {"eth1"};
  config.exclude_outbound_ports = {{53, 53}, {8000, 8010}};
  config.exclude_outbound_cidrs = {*base::Cidr::Parse("10.0.0.0/8"), *base::Cidr::Parse("fd00::1")};
  return config;
}

TEST(CommandsAsTextTest, SaysInNftsLanguageWhatTheJsonSays) {
  const std::string text = CommandsAsText(Rendered(Everything()).text()).value();
  EXPECT_THAT(text, StartsWith("add table inet postern\ndelete table inet postern\n"
                               "add table inet postern\n"));
  for (const char* line :
       {"add chain inet postern outbound { type nat hook output priority -100; policy accept; }\n",
        "add chain inet postern outbound_app\n",
        "outbound meta l4proto != tcp return comment \"not TCP\"\n",
        "outbound tcp flags & (fin | syn | rst | ack) != syn return comment",
        "outbound meta skuid { 901 } return comment \"loop guard, by uid\"\n",
        "outbound meta oifname { \"eth1\" } return", "outbound tcp dport { 53, 8000-8010 } return",
        "outbound socket cgroupv2 level 1 \"batch.slice\" return",
        "outbound socket cgroupv2 level 2 \"unified/system.slice/db.service\" jump outbound_app",
        "outbound_app ip daddr { 10.0.0.0/8 } return", "outbound_app ip6 daddr { fd00::1 } return",
        "outbound_app meta l4proto tcp counter redirect to :15001 comment",
        "tproxy_in fib daddr type != local return",
        "tproxy_in meta l4proto tcp counter tproxy to :15006 accept comment",
        "tproxy_back ct direction reply ct mark & 4096 == 4096 counter meta mark set meta mark | "
        "4096 comment",
        "filter_out tcp sport { 15001, 15006 } ct state invalid counter drop comment",
        "closed_out meta skuid { 901 } ct mark set ct mark | 8192 return comment"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(CommandsAsTextTest, RefusesWhatItHasNoWordsFor) {
  EXPECT_FALSE(CommandsAsText("").ok());
  EXPECT_FALSE(CommandsAsText(R"({"nftables":[{"add":{"rule":{"table":"postern","chain":"c",
      "comment":"x","expr":[{"queue":{"num":1}}]}}}]})")
                   .ok());
}

}  // namespace
}  // namespace postern::intercept
