// SPDX-License-Identifier: Apache-2.0
// --fail-closed and tproxy: what is let pass, and that what is not ends in a drop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/strings.h"
#include "proxy/intercept/rules.h"
#include "tests/unit/proxy/intercept/rendered.h"

namespace postern::intercept {
namespace {

using nlohmann::json;
using testing::ElementsAre;

InterceptConfig Closed() {
  InterceptConfig config = Guarded();
  config.fail_closed = true;
  return config;
}

bool Drops(const json& rule) {
  return rule.is_array() && rule.back().contains("drop");
}

TEST(FailClosedTest, IsOnlyThereWhenAskedFor) {
  EXPECT_TRUE(Rendered(Guarded()).Chain("closed_out").is_null());
  EXPECT_TRUE(Rendered(Guarded()).Chain("closed_in").is_null());
  const Rendered rules(Closed());
  EXPECT_EQ(rules.Chain("closed_out")["hook"], "output");
  EXPECT_EQ(rules.Chain("closed_in")["hook"], "input");
  for (const char* chain : {"closed_out", "closed_in"}) {
    EXPECT_GT(rules.Chain(chain)["prio"], -90) << "after every translation";
  }
}

TEST(FailClosedTest, DropsWhatTheApplicationSendsPastTheProxy) {
  const Rendered rules(Closed());
  EXPECT_THAT(rules.Comments("closed_out"),
              ElementsAre("not TCP", "loop guard, by uid", "connections that may pass",
                          "loopback, IPv4", "loopback, IPv6", "stays on this host",
                          "from the proxy's own ports", "the proxy's own ports",
                          kClosedInboundComment, "answers", "everybody is the application"));
  EXPECT_TRUE(Drops(rules.Rule("closed_app", kClosedOutboundComment)));
  EXPECT_TRUE(Drops(rules.Rule("closed_in", kClosedInboundComment)));
  EXPECT_TRUE(Drops(rules.Rule("closed_out", kClosedInboundComment)));
}

TEST(FailClosedTest, RemembersConnectionsOfWhoeverMayPassForPacketsWithoutASocket) {
  InterceptConfig config = Closed();
  config.exclude_uids = {5};
  const Rendered rules(config);
  for (const char* comment : {"loop guard, by uid", "excluded, by uid"}) {
    const json rule = rules.Rule("closed_out", comment);
    ASSERT_EQ(rule.size(), 3U) << comment;
    EXPECT_EQ(rule[1]["mangle"]["key"]["ct"]["key"], "mark") << comment;
    EXPECT_EQ(rule[1]["mangle"]["value"]["|"][1], 0x2000) << comment;
    EXPECT_TRUE(rule[2].contains("return")) << comment;
  }
  for (const char* chain : {"closed_out", "closed_in"}) {
    EXPECT_EQ(rules.Rule(chain, "connections that may pass")[0]["match"]["right"], 0x2000) << chain;
  }
}

TEST(FailClosedTest, LeavesTheSameOutAsTheRulesThatTake) {
  InterceptConfig config = Closed();
  config.exclude_outbound_ports = {{53, 53}};
  config.exclude_inbound_ports = {{22, 22}};
  config.exclude_outbound_cidrs = {*base::Cidr::Parse("10.0.0.0/8")};
  config.exclude_inbound_cidrs = {*base::Cidr::Parse("192.0.2.7")};
  config.exclude_interfaces = {"eth1"};
  config.outbound_cidrs = {*base::Cidr::Parse("198.18.0.0/15")};
  config.outbound_ports = {{5432, 5432}};
  config.inbound_ports = {{80, 90}};
  const Rendered rules(config);
  for (const char* comment :
       {"excluded ports", "excluded destinations, IPv4", "excluded interfaces",
        "answers of excluded ports", "answers to excluded sources, IPv4"}) {
    EXPECT_TRUE(rules.Rule("closed_out", comment).back().contains("return")) << comment;
  }
  for (const char* comment :
       {"excluded ports", "excluded sources, IPv4", "excluded interfaces",
        "answers of excluded ports", "answers of excluded destinations, IPv4"}) {
    EXPECT_TRUE(rules.Rule("closed_in", comment).back().contains("return")) << comment;
  }
  // A first packet is no answer: a source port is its sender's to choose.
  EXPECT_EQ(rules.Rule("closed_in", "answers of excluded ports")[0]["match"]["op"], "!=");
  const json out = rules.Rule("closed_app", kClosedOutboundComment);
  EXPECT_EQ(out[0]["match"]["right"]["set"][0]["prefix"]["addr"], "198.18.0.0");
  EXPECT_EQ(out[2]["match"]["right"]["set"], json::array({5432}));
  EXPECT_EQ(rules.Rule("closed_in", kClosedInboundComment)[1]["match"]["right"]["set"][0]["range"],
            json::array({80, 90}));
}

TEST(FailClosedTest, DropsOnlyInTheDirectionsThatAreTaken) {
  InterceptConfig config = Closed();
  config.inbound = false;
  const Rendered outbound(config);
  EXPECT_TRUE(outbound.Chain("closed_in").is_null());
  EXPECT_TRUE(outbound.Rule("closed_out", kClosedInboundComment).is_null());
  config.inbound = true;
  config.outbound = false;
  const Rendered inbound(config);
  EXPECT_TRUE(inbound.Chain("closed_app").is_null());
  EXPECT_TRUE(Drops(inbound.Rule("closed_in", kClosedInboundComment)));
}

TEST(FailClosedTest, DropsWhatTheNamedApplicationSendsAndNobodyElse) {
  InterceptConfig config = Closed();
  config.app_uids = {1001};
  const Rendered rules(config);
  const json rule = rules.Rule("closed_out", "the application, by uid");
  EXPECT_EQ(rule[0]["match"]["right"]["set"], json::array({1001}));
  EXPECT_EQ(rule[1]["jump"]["target"], "closed_app");
  EXPECT_TRUE(rules.Rule("closed_out", "everybody is the application").is_null());
}

// ---------------------------------------------------------------- tproxy

InterceptConfig Transparent() {
  InterceptConfig config = Guarded();
  config.mode = RuleMode::kTproxy;
  return config;
}

TEST(TproxyTest, TakesInboundConnectionsAsTheyAreAndDropsWhatNobodyTakes) {
  const Rendered rules(Transparent());
  EXPECT_TRUE(rules.Chain("inbound").is_null()) << "nothing is translated";
  EXPECT_EQ(rules.Chain("tproxy_in")["hook"], "prerouting");
  const json taken = rules.Rule("tproxy_in", kInboundRedirectComment);
  EXPECT_EQ(taken[2]["tproxy"]["port"], 15006);
  EXPECT_TRUE(taken.back().contains("accept"));
  EXPECT_THAT(
      rules.Comments("tproxy_in"),
      ElementsAre("not TCP", "from this host", "only passing through", "the proxy's own ports",
                  "answers to this host", kInboundRedirectComment, kClosedInboundComment));
  EXPECT_TRUE(Drops(rules.Rule("tproxy_in", kClosedInboundComment)));
  EXPECT_EQ(rules.state().tproxy_port, 15006);
}

TEST(TproxyTest, LeadsAnswersToTheClientBackToTheProxy) {
  const Rendered rules(Transparent());
  EXPECT_EQ(rules.Chain("tproxy_back")["type"], "route") << "a new mark looks the route up again";
  EXPECT_EQ(rules.Chain("tproxy_back")["hook"], "output");
  const json dials = rules.Rule("tproxy_back", "the proxy dials from a client's address, by uid");
  EXPECT_EQ(dials[0]["match"]["right"]["set"], json::array({901}));
  EXPECT_EQ(dials[1]["match"]["op"], "!=");
  EXPECT_EQ(dials[1]["match"]["left"]["fib"]["flags"], json::array({"saddr"}));
  EXPECT_EQ(dials.back()["mangle"]["key"]["ct"]["key"], "mark");
  const json back = rules.Rule("tproxy_back", kBackComment);
  EXPECT_EQ(back.back()["mangle"]["key"]["meta"]["key"], "mark");
  EXPECT_EQ(back.back()["mangle"]["value"]["|"][1], 0x1000);
}

TEST(TproxyTest, RedirectsOutboundConnectionsAsEver) {
  const Rendered rules(Transparent());
  EXPECT_EQ(rules.Rule("outbound_app", kOutboundRedirectComment).back()["redirect"]["port"], 15001);
}

TEST(TproxyTest, ClosedItDropsAtTheDoorAlreadyAndLetsTheAnswersGoBack) {
  InterceptConfig config = Transparent();
  config.fail_closed = true;
  const Rendered rules(config);
  EXPECT_TRUE(rules.Chain("closed_in").is_null());
  const std::vector<std::string> out = rules.Comments("closed_out");
  const auto back = std::find(out.begin(), out.end(), "back to the proxy");
  const auto drop = std::find(out.begin(), out.end(), kClosedInboundComment);
  EXPECT_LT(back, drop);
  EXPECT_NE(drop, out.end());
}

}  // namespace
}  // namespace postern::intercept
