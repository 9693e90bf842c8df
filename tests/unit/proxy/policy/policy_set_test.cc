// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/policy_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::policy {
namespace {

using config::PeerMode;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

x509::SpiffeId Id(std::string_view text) {
  return *x509::SpiffeId::Parse(text);
}

const std::string kHead = "apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\n";

// A whole document with the name "p" around the lines of a spec, each indented by two blanks here.
std::string Policy(const std::string& spec, const std::string& name = "p") {
  return kHead + "metadata: {name: " + name + "}\nspec:\n" + spec;
}

std::string Allow(const std::string& rules, const std::string& name = "p") {
  return Policy("  action: ALLOW\n  rules:\n" + rules, name);
}

std::string Deny(const std::string& rules, const std::string& name = "d") {
  return Policy("  action: DENY\n  rules:\n" + rules, name);
}

std::string Mode(const std::string& name, const std::string& spec) {
  return "apiVersion: postern.dev/v1\nkind: PeerMode\nmetadata: {name: " + name +
         "}\nspec: " + spec + "\n";
}

absl::StatusOr<std::shared_ptr<const PolicySet>> Compile(std::vector<std::string> documents) {
  std::vector<NamedYaml> sources;
  for (std::string& yaml : documents) {
    sources.push_back({base::StrCat("file", sources.size(), ".yaml"), std::move(yaml)});
  }
  return PolicySet::Compile(sources, Id("spiffe://td/db"), 42);
}

std::shared_ptr<const PolicySet> MustCompile(std::vector<std::string> documents) {
  auto set = Compile(std::move(documents));
  EXPECT_TRUE(set.ok()) << set.status();
  return set.ok() ? *std::move(set) : PolicySet::DenyAll();
}

std::string Fault(const std::string& document) {
  const auto set = Compile({document});
  return set.ok() ? "accepted" : std::string(set.status().message());
}

ConnectionFacts From(std::string_view id, uint16_t port = 5432, std::string_view ip = "10.1.2.3",
                     std::string_view tunnel = "") {
  ConnectionFacts facts;
  if (!id.empty()) {
    facts.source = Id(id);
  }
  if (!ip.empty()) {
    facts.source_ip = *base::IpAddress::Parse(ip);
  }
  facts.destination_port = port;
  facts.tunnel = std::string(tunnel);
  return facts;
}

TEST(PolicySetTest, LetsTheOwnTrustDomainInWithoutDocuments) {
  for (const auto& set : {PolicySet::SameTrustDomain(Id("spiffe://td/db")), MustCompile({})}) {
    EXPECT_TRUE(set->Authorize(From("spiffe://td/web")).allowed);
    EXPECT_EQ(set->Authorize(From("spiffe://td/web")).rule, "same trust domain");
    EXPECT_FALSE(set->Authorize(From("spiffe://td2/web")).allowed);
    EXPECT_FALSE(set->Authorize(From("spiffe://td.evil/web")).allowed);
    EXPECT_TRUE(set->Authorize(From("")).allowed);  // only asked where no identity is wanted
    EXPECT_FALSE(set->is_deny_all());
    EXPECT_EQ(set->ModeOf(80), std::nullopt);
  }
}

TEST(PolicySetTest, DeniesEverybodyBeforeTheFirstSetHasCome) {
  const auto set = PolicySet::DenyAll();
  EXPECT_TRUE(set->is_deny_all());
  EXPECT_FALSE(set->Authorize(From("spiffe://td/web")).allowed);
  EXPECT_FALSE(set->Authorize(From("")).allowed);
  EXPECT_EQ(set->Authorize(From("")).rule, "no policy has come yet");
}

struct Row {
  const char* rules;
  ConnectionFacts facts;
  bool matches;
};

TEST(PolicySetTest, MatchesAsTheSchemaSays) {
  const std::vector<Row> rows = {
      // Who.
      {"    - from: [{spiffeIds: [spiffe://td/web]}]\n", From("spiffe://td/web"), true},
      {"    - from: [{spiffeIds: [spiffe://td/web]}]\n", From("spiffe://td/web2"), false},
      {"    - from: [{spiffeIds: [spiffe://td/web]}]\n", From("spiffe://td/Web"), false},
      {"    - from: [{spiffeIds: [spiffe://td/web]}]\n", From("spiffe://td/web/a"), false},
      {"    - from: [{spiffeIds: [spiffe://td/web]}]\n", From(""), false},
      {"    - from: [{spiffeIds: [spiffe://td/ns/*]}]\n", From("spiffe://td/ns/a"), true},
      {"    - from: [{spiffeIds: [spiffe://td/ns/*]}]\n", From("spiffe://td/ns/a/b/c"), true},
      {"    - from: [{spiffeIds: [spiffe://td/ns/*]}]\n", From("spiffe://td/ns"), false},
      {"    - from: [{spiffeIds: [spiffe://td/ns/*]}]\n", From("spiffe://td/nsx"), false},
      {"    - from: [{spiffeIds: [spiffe://td/ns/a/*]}]\n", From("spiffe://td/ns/ab/c"), false},
      {"    - from: [{spiffeIds: [spiffe://td/ns/*]}]\n", From("spiffe://td/a/ns/b"), false},
      {"    - from: [{spiffeIds: [spiffe://td/*]}]\n", From("spiffe://td/x"), true},
      {"    - from: [{spiffeIds: [spiffe://td/*]}]\n", From("spiffe://td2/x"), false},
      {"    - from: [{trustDomains: [td2]}]\n", From("spiffe://td2/x"), true},
      {"    - from: [{trustDomains: [td2]}]\n", From("spiffe://td/x"), false},
      {"    - from: [{unauthenticated: true}]\n", From(""), true},
      {"    - from: [{unauthenticated: true}]\n", From("spiffe://td/x"), false},
      {"    - {}\n", From(""), true},
      {"    - {}\n", From("spiffe://td9/x"), true},
      // From where.
      {"    - from: [{cidrs: [10.0.0.0/8]}]\n", From("", 1, "10.255.0.1"), true},
      {"    - from: [{cidrs: [10.0.0.0/8]}]\n", From("", 1, "11.0.0.1"), false},
      {"    - from: [{cidrs: [10.0.0.0/8]}]\n", From("", 1, ""), false},
      {"    - from: [{cidrs: [\"fd00:5b::/32\"]}]\n", From("", 1, "fd00:5b:1::1"), true},
      {"    - from: [{cidrs: [\"fd00:5b::/32\"]}]\n", From("", 1, "fd00:5c::1"), false},
      {"    - from: [{cidrs: [0.0.0.0/0]}]\n", From("", 1, "fd00::1"), false},
      {"    - from: [{cidrs: [0.0.0.0/0]}]\n", From("", 1, "::ffff:192.0.2.1"), true},
      {"    - from: [{cidrs: [10.1.2.3]}]\n", From("", 1, "10.1.2.3"), true},
      // All of one item must hold, any item may.
      {"    - from: [{spiffeIds: [spiffe://td/a], cidrs: [10.0.0.0/8]}]\n", From("spiffe://td/a"),
       true},
      {"    - from: [{spiffeIds: [spiffe://td/a], cidrs: [11.0.0.0/8]}]\n", From("spiffe://td/a"),
       false},
      {"    - from: [{spiffeIds: [spiffe://td/a], trustDomains: [td2]}]\n", From("spiffe://td/a"),
       false},
      {"    - from: [{spiffeIds: [spiffe://td/a], trustDomains: [td]}]\n", From("spiffe://td/a"),
       true},
      {"    - from: [{unauthenticated: true, cidrs: [11.0.0.0/8]}]\n", From(""), false},
      {"    - from: [{spiffeIds: [spiffe://td/a]}, {cidrs: [10.0.0.0/8]}]\n", From("spiffe://td/b"),
       true},
      // To what.
      {"    - to: [{ports: [5432]}]\n", From("", 5432), true},
      {"    - to: [{ports: [5432]}]\n", From("", 5433), false},
      {"    - to: [{tunnels: [\"inbound:127.0.0.1:8443\"]}]\n",
       From("", 0, "", "inbound:127.0.0.1:8443"), true},
      {"    - to: [{tunnels: [\"inbound:127.0.0.1:8443\"]}]\n", From("", 0, "", "inbound:x"),
       false},
      {"    - to: [{tunnels: [t], ports: [80]}]\n", From("", 80, "", "t"), true},
      {"    - to: [{tunnels: [t], ports: [80]}]\n", From("", 80, "", "u"), false},
      {"    - to: [{tunnels: [t], ports: [80]}]\n", From("", 81, "", "t"), false},
      {"    - to: [{tunnels: [t]}, {ports: [80]}]\n", From("", 80), true},
      {"    - from: [{spiffeIds: [spiffe://td/a]}]\n      to: [{ports: [80]}]\n",
       From("spiffe://td/a", 81), false},
      {"    - from: [{spiffeIds: [spiffe://td/a], cidrs: [10.0.0.0/8]}]\n"
       "      to: [{tunnels: [t], ports: [80]}]\n",
       From("spiffe://td/a", 80, "10.0.0.1", "t"), true},
      {"    - from: [{spiffeIds: [spiffe://td/a], cidrs: [10.0.0.0/8]}]\n"
       "      to: [{tunnels: [t], ports: [80]}]\n",
       From("spiffe://td/a", 80, "11.0.0.1", "t"), false},
      // Any rule may match.
      {"    - to: [{ports: [1]}]\n    - to: [{ports: [2]}]\n", From("", 2), true},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(MustCompile({Allow(row.rules)})->Authorize(row.facts).allowed, row.matches)
        << row.rules;
    EXPECT_EQ(!MustCompile({Deny(row.rules), Allow("    - {}\n")})->Authorize(row.facts).allowed,
              row.matches)
        << "as DENY: " << row.rules;
  }
}

TEST(PolicySetTest, DenyWinsWhateverTheOrder) {
  const std::string allow = Allow("    - from: [{spiffeIds: [spiffe://td/web]}]\n");
  const std::string deny = Deny("    - to: [{ports: [5432]}]\n");
  for (const auto& set : {MustCompile({allow, deny}), MustCompile({deny, allow})}) {
    EXPECT_FALSE(set->Authorize(From("spiffe://td/web", 5432)).allowed);
    EXPECT_EQ(set->Authorize(From("spiffe://td/web", 5432)).rule, "d / rule 1");
    EXPECT_TRUE(set->Authorize(From("spiffe://td/web", 80)).allowed);
  }
}

TEST(PolicySetTest, NamesTheFirstRuleThatMatches) {
  const auto set =
      MustCompile({Allow("    - to: [{ports: [1]}]\n    - from: [{cidrs: [10.0.0.0/8]}]\n"
                         "    - from: [{spiffeIds: [spiffe://td/web]}]\n"),
                   Allow("    - {}\n", "q")});
  EXPECT_EQ(set->Authorize(From("spiffe://td/web", 1)).rule, "p / rule 1");
  EXPECT_EQ(set->Authorize(From("spiffe://td/web", 2)).rule, "p / rule 2");
  EXPECT_EQ(set->Authorize(From("spiffe://td/web", 2, "11.0.0.1")).rule, "p / rule 3");
  EXPECT_EQ(set->Authorize(From("spiffe://td/x", 2, "11.0.0.1")).rule, "q / rule 1");
}

TEST(PolicySetTest, AnAllowThatMatchesNobodyElseDeniesTheRest) {
  const auto set = MustCompile({Allow("    - from: [{spiffeIds: [spiffe://td/web]}]\n")});
  EXPECT_FALSE(set->Authorize(From("spiffe://td/other")).allowed);
  EXPECT_EQ(set->Authorize(From("spiffe://td/other")).rule, "no ALLOW rule matched");
  EXPECT_FALSE(set->Authorize(From("")).allowed);
  EXPECT_EQ(set->revision(), 42u);
}

TEST(PolicySetTest, AnAllowWithoutRulesLetsNobodyIn) {
  const auto set = MustCompile({Policy("  action: ALLOW\n  rules: []\n")});
  EXPECT_FALSE(set->Authorize(From("spiffe://td/web")).allowed);
}

TEST(PolicySetTest, WithOnlyDenyTheRestFollowsTheDefault) {
  const auto set = MustCompile({Deny("    - from: [{spiffeIds: [spiffe://td/bad]}]\n")});
  EXPECT_FALSE(set->Authorize(From("spiffe://td/bad")).allowed);
  EXPECT_TRUE(set->Authorize(From("spiffe://td/good")).allowed);
  EXPECT_FALSE(set->Authorize(From("spiffe://other/good")).allowed);
}

TEST(PolicySetTest, KeepsOnlyWhatIsForThisWorkload) {
  const std::string rules = "  action: ALLOW\n  rules: []\n";
  EXPECT_TRUE(MustCompile({Policy("  workload: spiffe://td/web\n" + rules)})
                  ->Authorize(From("spiffe://td/x"))
                  .allowed);
  EXPECT_FALSE(MustCompile({Policy("  workload: spiffe://td/db\n" + rules)})
                   ->Authorize(From("spiffe://td/x"))
                   .allowed);
  EXPECT_FALSE(MustCompile({Policy("  workload: spiffe://td/*\n" + rules)})
                   ->Authorize(From("spiffe://td/x"))
                   .allowed);
}

TEST(PolicySetTest, ChecksDocumentsOfOtherWorkloadsToo) {
  EXPECT_THAT(Fault(Policy("  workload: spiffe://td/web\n  action: PERMIT\n  rules: []\n")),
              HasSubstr("spec.action: 'PERMIT'"));
}

struct FaultRow {
  std::string document;
  const char* expected;  // part of the message
};

TEST(PolicySetTest, NamesFileLineAndFieldOfAFault) {
  const std::vector<FaultRow> rows = {
      {Allow("    - from: [{spiffeIds: [spiffe://td/a/]}]\n"),
       "file0.yaml:7: spec.rules[0].from[0].spiffeIds[0]: "},
      {Allow("    - from: [{spiffeIds: [spiffe://td//a]}]\n"), ".spiffeIds[0]: "},
      {Allow("    - from: [{spiffeIds: [spiffe://td/a*]}]\n"), ".spiffeIds[0]: "},
      {Allow("    - from: [{spiffeIds: [\"spiffe://td/*/b\"]}]\n"), ".spiffeIds[0]: "},
      {Allow("    - from: [{spiffeIds: [spiffe://TD/a]}]\n"), ".spiffeIds[0]: "},
      {Allow("    - from: [{spiffeIds: []}]\n"), "spiffeIds: is empty"},
      {Allow("    - from: [{spiffeIds: spiffe://td/a}]\n"), "spiffeIds: must be a list"},
      {Allow("    - from: []\n"), "from: is empty"},
      {Allow("    - from: [{}]\n"), "from[0]: is empty"},
      {Allow("    - to: [{}]\n"), "to[0]: is empty"},
      {Allow("    - from: [{spiffeids: [spiffe://td/a]}]\n"), "spiffeids: unknown field"},
      {Allow("    - form: []\n"), "form: unknown field; known here: from, to"},
      {Allow("    - \n"), "spec.rules[0]: must be a map"},
      {Allow("    - from: [{unauthenticated: false}]\n"), "only true is accepted"},
      {Allow("    - from: [{unauthenticated: true, trustDomains: [td]}]\n"),
       "nobody is unauthenticated and has an identity"},
      {Allow("    - from: [{trustDomains: [TD]}]\n"), "trustDomains[0]: "},
      {Allow("    - from: [{cidrs: [10.0.0.1/8]}]\n"), "cidrs[0]: "},
      {Allow("    - to: [{ports: [0]}]\n"), "ports[0]: '0' is no port"},
      {Allow("    - to: [{ports: [65536]}]\n"), "ports[0]: '65536' is no port"},
      {Allow("    - to: [{ports: [http]}]\n"), "ports[0]: 'http' is no port"},
      {Policy("  rules: []\n"), "spec.action: missing"},
      {Policy("  action: allow\n  rules: []\n"), "'allow' is not one of: ALLOW, DENY"},
      {Policy("  action: ALLOW\n"), "spec.rules: missing"},
      {Policy("  action: DENY\n  rules: []\n"), "spec.rules: is empty"},
      {Policy("  action: ALLOW\n  action: DENY\n  rules: []\n"), "action: stands twice"},
      {Policy("  action: ALLOW\n  rules: []\n  extra: 1\n"), "file0.yaml:7: spec.extra: unknown"},
      {Policy("  workload: db\n  action: ALLOW\n  rules: []\n"), "spec.workload: "},
      {"kind: AuthorizationPolicy\n", "apiVersion: missing"},
      {"apiVersion: v1\nkind: x\n", "write postern.dev/v1"},
      {"apiVersion: postern.dev/v1\nkind: Foo\nmetadata: {name: a}\nspec: {}\n", "kind: is 'Foo'"},
      {"apiVersion: postern.dev/v1\nkind: PeerMode\nmetadata: {}\nspec: {}\n",
       "metadata.name: missing"},
      {"apiVersion: postern.dev/v1\nkind: PeerMode\nmetadata: {name: a, labels: {}}\nspec: {}\n",
       "metadata.labels: unknown field"},
      {"", "holds no document"},
      {"# only a comment\n", "holds no document"},
      {"- a\n", "must be a map with the fields"},
      {"a: [\n", "not valid YAML"},
      {"a: *x\n", "file0.yaml:1: "},
      {Mode("m", "{}"), "spec: says nothing"},
      {Mode("m", "{default: lax}"), "spec.default: 'lax' is not one of"},
      {Mode("m", "{ports: {http: strict}}"), "no port"},
      {Mode("m", "{ports: {\"80\": strict, \"080\": disabled}}"), "stands twice"},
      {Mode("m", "{ports: [80]}"), "must be a map of port and mode"},
      {Mode("m", "{default: strict}") + "---\n" + Mode("n", "{default: disabled}"),
       "PeerMode n is for the same workload as m"},
      {Allow("    - {}\n") + "---\n" + Allow("    - {}\n"), "is called p too"},
  };
  for (const FaultRow& row : rows) {
    EXPECT_THAT(Fault(row.document), AllOf(StartsWith("file0.yaml:"), HasSubstr(row.expected)))
        << row.document;
  }
}

TEST(PolicySetTest, RefusesYamlBombs) {
  EXPECT_THAT(Fault("a: &a [x]\nb: [*a, *a]\n"), HasSubstr("anchors"));
  EXPECT_THAT(Fault("a: !!binary x\n"), HasSubstr("tags"));
  EXPECT_THAT(Fault(std::string(40, '[') + std::string(40, ']')), HasSubstr("nested deeper"));
  EXPECT_THAT(Fault(std::string(100'000, '[')), StartsWith("file0.yaml:"));
  EXPECT_THAT(Fault(std::string(2U << 20U, '#')), HasSubstr("larger than"));
  EXPECT_THAT(Fault("{\"a\"},\n\"b\": {}}}\n"), StartsWith("file0.yaml:"));  // yaml-cpp: for ever
  std::string many;
  for (int i = 0; i < 10'001; ++i) {
    many += "--- \n";
  }
  EXPECT_THAT(Fault(many), HasSubstr("documents"));
  std::string ports = "1";
  std::string ids = "spiffe://td/a";
  for (int i = 2; i <= 1000; ++i) {
    base::StrAppend(ports, ", ", i);
    base::StrAppend(ids, ", spiffe://td/a", i);
  }
  EXPECT_THAT(Fault(Allow("    - from: [{spiffeIds: [" + ids + "]}]\n      to: [{ports: [" + ports +
                          "]}]\n")),
              HasSubstr("split the rule"));
}

TEST(PolicySetTest, AcceptsJson) {
  const auto set = MustCompile(
      {R"({"apiVersion":"postern.dev/v1","kind":"AuthorizationPolicy","metadata":{"name":"j"},
           "spec":{"action":"ALLOW","rules":[{"to":[{"ports":[80]}]}]}})"});
  EXPECT_TRUE(set->Authorize(From("", 80)).allowed);
  EXPECT_FALSE(set->Authorize(From("", 81)).allowed);
}

TEST(PolicySetTest, TheMostSpecificPeerModeCountsFirst) {
  const auto set = MustCompile({Mode("mesh", "{default: strict, ports: {\"80\": disabled}}"),
                                Mode("ns",
                                     "{workload: \"spiffe://td/*\", ports: {\"81\": "
                                     "disabled, \"3306\": strict}}"),
                                Mode("db",
                                     "{workload: spiffe://td/db, ports: {\"3306\": "
                                     "permissive}}"),
                                Mode("web", "{workload: spiffe://td/web, default: disabled}")});
  EXPECT_EQ(set->ModeOf(3306), PeerMode::kPermissive);
  EXPECT_EQ(set->ModeOf(81), PeerMode::kDisabled);
  EXPECT_EQ(set->ModeOf(80), PeerMode::kDisabled);
  EXPECT_EQ(set->ModeOf(82), PeerMode::kStrict);
}

TEST(PolicySetTest, TenThousandRulesCostNoMoreThanAFew) {
  std::string rules;
  for (int i = 0; i < 5'000; ++i) {
    base::StrAppend(rules, "    - from: [{spiffeIds: [spiffe://td/w", i,
                    "]}]\n      to: [{ports: [", i + 1, "]}]\n");
    base::StrAppend(rules, "    - from: [{spiffeIds: [\"spiffe://td/n", i, "/*\"]}]\n");
  }
  const auto set = MustCompile({Allow(rules)});
  const ConnectionFacts last = From("spiffe://td/w4999", 5000);
  const ConnectionFacts prefix = From("spiffe://td/n4999/a/b");
  const ConnectionFacts stranger = From("spiffe://td/x");
  EXPECT_EQ(set->Authorize(last).rule, "p / rule 9999");
  EXPECT_EQ(set->Authorize(prefix).rule, "p / rule 10000");
  EXPECT_FALSE(set->Authorize(stranger).allowed);
  const auto begin = std::chrono::steady_clock::now();
  constexpr int kRounds = 10'000;
  size_t allowed = 0;
  for (int i = 0; i < kRounds; ++i) {
    allowed += set->Authorize(last).allowed ? 1 : 0;
    allowed += set->Authorize(stranger).allowed ? 1 : 0;
  }
  const auto each = (std::chrono::steady_clock::now() - begin) / (2 * kRounds);
  EXPECT_EQ(allowed, size_t{kRounds});
  // About 1 us; a walk over the rules would take a hundred times that. Room for sanitizers.
  EXPECT_LT(each, std::chrono::microseconds(50));
  RecordProperty("nanoseconds_each", static_cast<int>(each.count()));
}

}  // namespace
}  // namespace postern::policy
