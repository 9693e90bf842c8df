// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/strings.h"
#include "tests/unit/proxy/intercept/rendered.h"

namespace postern::intercept {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Why(const absl::Status& status) {
  return std::string(base::Message(status));
}

TEST(PortRangeTest, ReadsPortsAndRanges) {
  EXPECT_EQ(*PortRange::Parse("443"), (PortRange{443, 443}));
  EXPECT_EQ(*PortRange::Parse("8000-8099"), (PortRange{8000, 8099}));
  EXPECT_EQ(*PortRange::Parse("1-65535"), (PortRange{1, 65535}));
}

TEST(PortRangeTest, RefusesWhatIsNoPort) {
  for (const char* text : {"", "0", "65536", "http", "80-", "-80", "90-80", "80 ", " 80", "+80",
                           "80-90-100", "0-10", "8000-65536"}) {
    EXPECT_EQ(PortRange::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(RenderUpTest, ReplacesTheTableInOneTransactionWhetherItWasThereOrNot) {
  const Rendered rules(Guarded());
  const json table = {{"table", {{"family", "inet"}, {"name", "postern"}}}};
  ASSERT_GE(rules.commands().size(), 4U);
  EXPECT_EQ(rules.commands()[0], json({{"add", table}}));
  EXPECT_EQ(rules.commands()[1], json({{"delete", table}}));
  EXPECT_EQ(rules.commands()[2], json({{"add", table}}));
}

TEST(RenderUpTest, HooksIntoNatForBothDirections) {
  const Rendered rules(Guarded());
  const json inbound = rules.Chain("inbound");
  EXPECT_EQ(inbound["type"], "nat");
  EXPECT_EQ(inbound["hook"], "prerouting");
  EXPECT_EQ(inbound["prio"], -100);
  EXPECT_EQ(inbound["policy"], "accept");
  const json outbound = rules.Chain("outbound");
  EXPECT_EQ(outbound["type"], "nat");
  EXPECT_EQ(outbound["hook"], "output");
}

TEST(RenderUpTest, LetsTheProxyThroughBeforeAnythingElseOfTheApplication) {
  InterceptConfig config = Guarded();
  config.proxy_gids = {77};
  config.proxy_mark = 0x505;
  const Rendered rules(config);
  EXPECT_THAT(
      rules.Comments("outbound"),
      ElementsAre("not TCP", "not the first packet of a connection",
                  base::StrCat(kProbeComment, ", by uid"), base::StrCat(kProbeComment, ", by uid"),
                  base::StrCat(kProbeComment, ", by gid"), base::StrCat(kProbeComment, ", by gid"),
                  base::StrCat(kProbeComment, ", by mark"),
                  base::StrCat(kProbeComment, ", by mark"), "loop guard, by uid",
                  "loop guard, by gid", "loop guard, by mark", "loopback, IPv4", "loopback, IPv6",
                  "the proxy's own ports", "everybody is the application"));
  const json mark = rules.Rule("outbound", "loop guard, by mark");
  EXPECT_EQ(mark[0]["match"]["left"]["meta"]["key"], "mark");
  EXPECT_EQ(mark[0]["match"]["right"], 0x505);
  EXPECT_TRUE(mark[1].contains("return"));
}

TEST(RenderUpTest, AlwaysLeavesOutLoopbackAndTheProxysOwnPorts) {
  InterceptConfig config = Guarded();
  config.inbound_port = 16006;
  config.outbound_port = 16001;
  config.own_ports = {17000};
  const Rendered rules(config);
  for (const char* chain : {"inbound", "outbound"}) {
    const json ports = rules.Rule(chain, "the proxy's own ports");
    EXPECT_EQ(ports[0]["match"]["right"]["set"], json({15000, 15020, 16001, 16006, 17000}))
        << chain;
    const json v4 = rules.Rule(chain, "loopback, IPv4");
    EXPECT_EQ(v4[0]["match"]["right"]["prefix"]["addr"], "127.0.0.0") << chain;
    EXPECT_EQ(v4[0]["match"]["right"]["prefix"]["len"], 8) << chain;
    EXPECT_EQ(rules.Rule(chain, "loopback, IPv6")[0]["match"]["right"], "::1") << chain;
  }
}

TEST(RenderUpTest, RedirectsToThePortsOfTheProxy) {
  InterceptConfig config = Guarded();
  config.inbound_port = 16006;
  config.outbound_port = 16001;
  const Rendered rules(config);
  EXPECT_EQ(rules.Rule("inbound", kInboundRedirectComment).back()["redirect"]["port"], 16006);
  EXPECT_EQ(rules.Rule("outbound_app", kOutboundRedirectComment).back()["redirect"]["port"], 16001);
}

TEST(RenderUpTest, TakesOnlyTheFirstPacketOfAConnection) {
  const Rendered rules(Guarded());
  const json rule = rules.Rule("outbound", "not the first packet of a connection");
  EXPECT_EQ(rule[0]["match"]["op"], "!=");
  EXPECT_EQ(rule[0]["match"]["right"], "syn");
  EXPECT_TRUE(rule[1].contains("return"));
}

TEST(RenderUpTest, LeadsTheProxysOwnProbesBackToIt) {
  InterceptConfig config = Guarded();
  config.outbound_port = 16001;
  for (const bool outbound : {true, false}) {
    config.outbound = outbound;
    const Rendered rules(config);
    const json probe =
        rules.Rule(outbound ? "outbound" : "probe", base::StrCat(kProbeComment, ", by uid"));
    ASSERT_EQ(probe.size(), 4U) << outbound;
    EXPECT_EQ(probe[0]["match"]["right"], "127.0.0.1");
    EXPECT_EQ(probe[1]["match"]["right"], 21001);
    EXPECT_EQ(probe[2]["match"]["right"]["set"], json::array({901})) << "nobody else is taken";
    EXPECT_EQ(probe[3]["redirect"]["port"], 16001);
  }
}

TEST(ProbePortTest, IsAPortForEveryOutboundPort) {
  EXPECT_EQ(ProbePort(15001), 20001);
  EXPECT_EQ(ProbePort(60535), 65535);
  EXPECT_EQ(ProbePort(60536), 55536);
  EXPECT_EQ(ProbePort(65535), 60535);
}

TEST(RenderUpTest, LetsTheApplicationCallItself) {
  const Rendered all(Guarded());
  const json any = all.Rule("outbound_app", "the application calls itself");
  ASSERT_EQ(any.size(), 2U);
  EXPECT_EQ(any[0]["match"]["right"], "local");

  InterceptConfig config = Guarded();
  config.inbound_ports = {{80, 80}};
  const Rendered some(config);
  const json one = some.Rule("outbound_app", "the application calls itself");
  ASSERT_EQ(one.size(), 3U);  // another workload's port on this host goes through the proxy
  EXPECT_EQ(one[1]["match"]["right"]["set"], json::array({80}));
}

TEST(RenderUpTest, CatchesOtherUsersOfThisHostInOutputWhenTheApplicationsUserIsKnown) {
  InterceptConfig config = Guarded();
  config.app_uids = {1001, 1002};
  config.inbound_ports = {{5432, 5432}};
  const Rendered rules(config);
  const json chain = rules.Chain("inbound_from_this_host");
  EXPECT_EQ(chain["hook"], "output");
  EXPECT_GT(chain["prio"], rules.Chain("outbound")["prio"]);  // each application's own proxy first
  EXPECT_THAT(
      rules.Comments("inbound_from_this_host"),
      ElementsAre("not TCP", "not the first packet of a connection", "loop guard, by uid",
                  "loopback, IPv4", "loopback, IPv6", "the application calls itself, by uid",
                  "goes to another host", "the proxy's own ports", kLocalRedirectComment));
  const json redirect = rules.Rule("inbound_from_this_host", kLocalRedirectComment);
  EXPECT_EQ(redirect.back()["redirect"]["port"], 15006);
  EXPECT_EQ(rules.Rule("outbound", "the application, by uid")[0]["match"]["right"]["set"],
            json({1001, 1002}));
  EXPECT_TRUE(Rendered(Guarded()).Chain("inbound_from_this_host").is_null());
}

TEST(RenderUpTest, LeadsTheProxyToItselfWhereItSaysThatItDialsItsOwnWorkload) {
  InterceptConfig config = Guarded();
  config.proxy_gids = {77};
  config.inbound_port = 16006;
  config.inbound_ports = {{5432, 5432}};
  config.exclude_inbound_ports = {{22, 22}};
  for (const bool outbound : {true, false}) {  // an outbound proxy port needs no rule
    config.outbound = outbound;
    const Rendered rules(config);
    EXPECT_EQ(rules.Chain("own_workload")["hook"], "output");
    EXPECT_THAT(rules.Comments("own_workload"),
                ElementsAre("not TCP", "not the first packet of a connection", "another connection",
                            "loopback, IPv4", "loopback, IPv6", "goes to another host",
                            "the proxy's own ports", "excluded ports",
                            base::StrCat(kOwnWorkloadComment, ", by uid"),
                            base::StrCat(kOwnWorkloadComment, ", by gid")));
  }
  const Rendered rules(config);
  const json other = rules.Rule("own_workload", "another connection");
  EXPECT_EQ(other[0]["match"]["op"], "!=");
  EXPECT_EQ(other[0]["match"]["left"]["meta"]["key"], "priority");
  EXPECT_EQ(other[0]["match"]["right"], "0:5");
  const json own = rules.Rule("own_workload", base::StrCat(kOwnWorkloadComment, ", by uid"));
  ASSERT_EQ(own.size(), 5U);
  EXPECT_EQ(own[1]["match"]["right"]["set"], json::array({5432})) << "no other workload's";
  EXPECT_EQ(own[2]["match"]["right"]["set"], json::array({901})) << "nobody else is taken";
  EXPECT_EQ(own[4]["redirect"]["port"], 16006);

  config.inbound = false;
  config.outbound = true;
  EXPECT_TRUE(Rendered(config).Chain("own_workload").is_null());
}

TEST(RenderUpTest, AppliesEveryExclusion) {
  InterceptConfig config = Guarded();
  config.exclude_inbound_ports = {{22, 22}};
  config.exclude_outbound_ports = {{53, 53}, {8000, 8010}};
  config.exclude_uids = {5};
  config.exclude_gids = {6};
  config.exclude_interfaces = {"eth1", "docker0"};
  config.exclude_outbound_cidrs = {*base::Cidr::Parse("10.0.0.0/8"),
                                   *base::Cidr::Parse("fd00::/8")};
  config.exclude_inbound_cidrs = {*base::Cidr::Parse("192.0.2.7")};
  const Rendered rules(config);
  EXPECT_EQ(rules.Rule("inbound", "excluded ports")[0]["match"]["right"]["set"], json::array({22}));
  EXPECT_EQ(rules.Rule("outbound", "excluded ports")[0]["match"]["right"]["set"],
            json::array({53, {{"range", {8000, 8010}}}}));
  EXPECT_EQ(rules.Rule("outbound", "excluded, by uid")[0]["match"]["right"]["set"],
            json::array({5}));
  EXPECT_EQ(rules.Rule("outbound", "excluded, by gid")[0]["match"]["right"]["set"],
            json::array({6}));
  const json in = rules.Rule("inbound", "excluded interfaces");
  EXPECT_EQ(in[0]["match"]["left"]["meta"]["key"], "iifname");
  EXPECT_EQ(in[0]["match"]["right"]["set"], json::array({"docker0", "eth1"}));
  EXPECT_EQ(rules.Rule("outbound", "excluded interfaces")[0]["match"]["left"]["meta"]["key"],
            "oifname");
  EXPECT_EQ(
      rules.Rule("outbound_app",
                 "excluded destinations, IPv4")[0]["match"]["right"]["set"][0]["prefix"]["addr"],
      "10.0.0.0");
  EXPECT_EQ(
      rules.Rule("outbound_app",
                 "excluded destinations, IPv6")[0]["match"]["right"]["set"][0]["prefix"]["len"],
      8);
  EXPECT_EQ(rules.Rule("inbound", "excluded sources, IPv4")[0]["match"]["right"]["set"],
            json::array({"192.0.2.7"}));
}

TEST(RenderUpTest, TakesOnlyThePortsAndDestinationsThatWereAskedFor) {
  InterceptConfig config = Guarded();
  config.inbound_ports = {{80, 80}};
  config.outbound_ports = {{5432, 5432}};
  config.outbound_cidrs = {*base::Cidr::Parse("198.18.0.0/15"), *base::Cidr::Parse("fd00:5b::/32")};
  const Rendered rules(config);
  EXPECT_EQ(rules.Rule("inbound", kInboundRedirectComment)[1]["match"]["right"]["set"],
            json::array({80}));
  size_t redirects = 0;
  for (const std::string& comment : rules.Comments("outbound_app")) {
    redirects += comment == kOutboundRedirectComment ? 1U : 0U;
  }
  EXPECT_EQ(redirects, 2U);  // one for each family
  const json v4 = rules.Rule("outbound_app", kOutboundRedirectComment);
  EXPECT_EQ(v4[0]["match"]["left"]["payload"]["protocol"], "ip");
  EXPECT_EQ(v4[2]["match"]["right"]["set"], json::array({5432}));
}

TEST(RenderUpTest, MergesWhatOverlapsBecauseNftRefusesIt) {
  InterceptConfig config = Guarded();
  config.exclude_outbound_ports = {{90, 100}, {80, 95}, {80, 80}, {101, 101}, {300, 300}};
  config.exclude_outbound_cidrs = {*base::Cidr::Parse("10.1.0.0/16"),
                                   *base::Cidr::Parse("10.0.0.0/8"),
                                   *base::Cidr::Parse("10.0.0.0/8")};
  const Rendered rules(config);
  EXPECT_EQ(rules.Rule("outbound", "excluded ports")[0]["match"]["right"]["set"],
            json::array({{{"range", {80, 101}}}, 300}));
  EXPECT_EQ(
      rules.Rule("outbound_app", "excluded destinations, IPv4")[0]["match"]["right"]["set"].size(),
      1U);
}

TEST(RenderUpTest, DropsWhatCannotBeTranslated) {
  const Rendered rules(Guarded());
  EXPECT_EQ(rules.Chain("filter_in")["hook"], "input");
  EXPECT_EQ(rules.Chain("filter_out")["hook"], "output");
  for (const char* chain : {"filter_in", "filter_out"}) {
    const json rule = rules.Rule(chain, "not translatable");
    EXPECT_TRUE(rule.back().contains("drop")) << chain;
    EXPECT_EQ(rule[1]["match"]["left"]["ct"]["key"], "state") << chain;
    EXPECT_EQ(rule[1]["match"]["right"], "invalid") << chain;
  }
}

TEST(RenderUpTest, CountsUdpThatIsNotCarried) {
  const json rule = Rendered(Guarded()).Rule("filter_out", kUdpComment);
  ASSERT_EQ(rule.size(), 2U);
  EXPECT_EQ(rule[0]["match"]["right"], "udp");
  EXPECT_TRUE(rule[1].contains("counter"));
}

TEST(RenderUpTest, LeavesOutADirectionThatIsNotWanted) {
  InterceptConfig config = Guarded();
  config.outbound = false;
  EXPECT_TRUE(Rendered(config).Chain("outbound").is_null());
  EXPECT_FALSE(Rendered(config).Chain("inbound").is_null());
  config.outbound = true;
  config.inbound = false;
  EXPECT_TRUE(Rendered(config).Chain("inbound").is_null());
  EXPECT_TRUE(Rendered(config).Rule("outbound_app", "the application calls itself").is_null());
}

TEST(RenderUpTest, GivesASecondProxyATableOfItsOwn) {
  InterceptConfig config = Guarded();
  config.name = "db";
  const Rendered rules(config);
  EXPECT_EQ(rules.commands()[0]["add"]["table"]["name"], "postern_db");
  for (const json& command : rules.commands()) {
    EXPECT_THAT(command.dump(), HasSubstr("postern_db"));
  }
}

TEST(RenderUpTest, NamesTheFlagOfWhatIsWrong) {
  const auto error = [](const InterceptConfig& config) { return Why(RenderUp(config).status()); };
  EXPECT_THAT(error(InterceptConfig()), HasSubstr("--proxy-uid"));
  InterceptConfig config = Guarded();
  config.name = "x; flush ruleset";
  EXPECT_THAT(error(config), HasSubstr("--name"));
  config = Guarded();
  config.exclude_interfaces = {"an-interface-name-too-long"};
  EXPECT_THAT(error(config), HasSubstr("--exclude-interface"));
  config = Guarded();
  config.inbound = config.outbound = false;
  EXPECT_THAT(error(config), HasSubstr("--no-inbound"));
  config = Guarded();
  config.inbound_port = config.outbound_port;
  EXPECT_THAT(error(config), HasSubstr("--inbound-port"));
  config = Guarded();
  config.mode = RuleMode::kTproxy;
  config.inbound = false;
  EXPECT_THAT(error(config), HasSubstr("--no-inbound"));
  config = Guarded();
  config.pass_mark = 0x3000;
  EXPECT_THAT(error(config), HasSubstr("--pass-mark"));
  config = Guarded();
  config.return_mark = config.pass_mark;
  EXPECT_THAT(error(config), HasSubstr("--return-mark"));
  config = Guarded();
  config.mode = RuleMode::kTproxy;
  config.proxy_mark = 0x1001;
  EXPECT_THAT(error(config), HasSubstr("--return-mark"));
}

TEST(RenderDownTest, RemovesTheTableWhetherItIsThereOrNot) {
  const json down = json::parse(RenderDown("db").value());
  ASSERT_EQ(down["nftables"].size(), 2U);
  EXPECT_EQ(down["nftables"][0]["add"]["table"]["name"], "postern_db");
  EXPECT_EQ(down["nftables"][1]["delete"]["table"]["name"], "postern_db");
}

TEST(ParseTableTest, ReadsCountersAndPassesOverOtherTables) {
  const auto state = ParseTable(
      R"({"nftables":[{"metainfo":{"version":"1.0.6"}},
          {"table":{"family":"inet","name":"postern"}},
          {"chain":{"family":"inet","table":"postern","name":"outbound"}},
          {"chain":{"family":"inet","table":"other","name":"x"}},
          {"rule":{"table":"postern","chain":"outbound","comment":"a",
                   "expr":[{"counter":{"packets":7,"bytes":1}},{"return":null}]}},
          {"rule":{"table":"other","chain":"x","expr":[]}}]})",
      "");
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_THAT(state->chains, ElementsAre("outbound"));
  EXPECT_THAT(state->rules, ElementsAre(RuleState{"outbound", "a", true, 7}));
}

TEST(ParseTableTest, RefusesWhatIsNotNftsJson) {
  for (const char* text : {"", "{", "[]", "{}", R"({"nftables":1})"}) {
    EXPECT_FALSE(ParseTable(text, "").ok()) << text;
  }
}

TEST(CompareTablesTest, FindsWhatIsMissingForeignOrOutOfOrder) {
  const TableState wanted{{"c"}, {{"c", "one", false, 0}, {"c", "two", false, 0}}};
  EXPECT_TRUE(CompareTables(wanted, wanted).ok());

  TableState found = wanted;
  found.rules[0].packets = 9;
  EXPECT_TRUE(CompareTables(wanted, found).ok()) << "what was counted does not matter";
  found.rules.pop_back();
  EXPECT_THAT(Why(CompareTables(wanted, found)), HasSubstr("'two' belongs"));
  found = wanted;
  std::swap(found.rules[0], found.rules[1]);
  EXPECT_FALSE(CompareTables(wanted, found).ok());
  found = wanted;
  found.rules.push_back({"c", "accept all", false, 0});
  EXPECT_THAT(Why(CompareTables(wanted, found)), HasSubstr("'accept all'"));
  found = wanted;
  found.chains.clear();
  EXPECT_THAT(Why(CompareTables(wanted, found)), HasSubstr("'c' is missing"));
  found = wanted;
  found.chains.push_back("extra");
  EXPECT_FALSE(CompareTables(wanted, found).ok());
}

}  // namespace
}  // namespace postern::intercept
