// SPDX-License-Identifier: Apache-2.0
// Audit mode, defaults, probe exemptions, and what the mode of a port adds to the verdict.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/strings.h"
#include "proxy/policy/policy_document.h"
#include "proxy/policy/policy_set.h"

namespace postern::policy {
namespace {

using config::PeerMode;
using testing::HasSubstr;
using testing::IsEmpty;

x509::SpiffeId Id(std::string_view text) {
  return *x509::SpiffeId::Parse(text);
}

std::string Document(std::string_view kind, std::string_view name, std::string_view spec) {
  return base::StrCat("apiVersion: postern.dev/v1\nkind: ", kind, "\nmetadata: {name: ", name,
                      "}\nspec: ", spec, "\n");
}

absl::StatusOr<std::shared_ptr<const PolicySet>> Compile(const std::vector<std::string>& all) {
  std::vector<NamedYaml> sources;
  for (const std::string& yaml : all) {
    sources.push_back({base::StrCat("file", sources.size(), ".yaml"), yaml});
  }
  return PolicySet::Compile(sources, Id("spiffe://td/db"), 1);
}

std::shared_ptr<const PolicySet> MustCompile(const std::vector<std::string>& all) {
  auto set = Compile(all);
  EXPECT_TRUE(set.ok()) << set.status();
  return set.ok() ? *std::move(set) : PolicySet::DenyAll();
}

std::string Fault(const std::string& document) {
  return std::string(base::Message(Compile({document}).status()));
}

// "none" is nobody in particular.
ConnectionFacts From(const std::string& id, uint16_t port = 5432,
                     const std::string& ip = "10.0.0.9") {
  ConnectionFacts facts;
  if (id != "none") {
    facts.source = Id(id);
  }
  facts.source_ip = *base::IpAddress::Parse(ip);
  facts.destination_port = port;
  return facts;
}

std::string Allow(std::string_view ids, std::string_view mode, std::string_view name = "a") {
  return Document("AuthorizationPolicy", name,
                  base::StrCat("{action: ALLOW, mode: ", mode, ", rules: [{from: [{spiffeIds: [",
                               ids, "]}]}]}"));
}
std::string Deny(std::string_view ids, std::string_view mode, std::string_view name = "d") {
  return Document("AuthorizationPolicy", name,
                  base::StrCat("{action: DENY, mode: ", mode, ", rules: [{from: [{spiffeIds: [",
                               ids, "]}]}]}"));
}

TEST(AuditTest, ADenyThatIsOnlyAuditedPassesAndIsNamed) {
  const auto set = MustCompile({Deny("\"spiffe://td/web\"", "audit")});
  const Decision web = set->Authorize(From("spiffe://td/web"));
  EXPECT_TRUE(web.allowed);
  EXPECT_EQ(web.rule, "same trust domain");
  EXPECT_EQ(web.audit, "d / rule 1");
  EXPECT_THAT(set->Authorize(From("spiffe://td/other")).audit, IsEmpty());
}

TEST(AuditTest, AnAllowThatIsOnlyAuditedSaysWhomItWouldLeaveOut) {
  const auto set = MustCompile({Allow("\"spiffe://td/web\"", "audit")});
  EXPECT_THAT(set->Authorize(From("spiffe://td/web")).audit, IsEmpty());
  const Decision other = set->Authorize(From("spiffe://td/other"));
  EXPECT_TRUE(other.allowed);
  EXPECT_EQ(other.audit, "no ALLOW rule matched");
  const Decision nobody = set->Authorize(From("none"));
  EXPECT_TRUE(nobody.allowed);
  EXPECT_EQ(nobody.audit, "no ALLOW rule matched");
}

TEST(AuditTest, AnAuditedAllowAddsToTheEnforcedOnes) {
  const auto set = MustCompile(
      {Allow("\"spiffe://td/web\"", "enforce"), Allow("\"spiffe://td/new\"", "audit", "b")});
  // Let in by a rule that stays: nothing would change.
  EXPECT_THAT(set->Authorize(From("spiffe://td/web")).audit, IsEmpty());
  // An audited ALLOW lets nobody in yet.
  EXPECT_FALSE(set->Authorize(From("spiffe://td/new")).allowed);
}

TEST(AuditTest, WhatIsRefusedIsRefusedForTheEnforcedReasonAlone) {
  const auto set = MustCompile(
      {Deny("\"spiffe://td/web\"", "enforce"), Deny("\"spiffe://td/web\"", "audit", "later")});
  const Decision decision = set->Authorize(From("spiffe://td/web"));
  EXPECT_FALSE(decision.allowed);
  EXPECT_EQ(decision.rule, "d / rule 1");
  EXPECT_THAT(decision.audit, IsEmpty());
}

TEST(AuditTest, TheModeIsOneOfTwoWords) {
  EXPECT_THAT(Fault(Deny("\"spiffe://td/web\"", "dry-run")),
              HasSubstr("spec.mode: 'dry-run' is not one of: enforce, audit"));
}

struct DefaultCase {
  std::string access;
  bool own, foreign, nobody;
};

class DefaultTest : public ::testing::TestWithParam<DefaultCase> {};

TEST_P(DefaultTest, CountsWhereNoAllowApplies) {
  const DefaultCase& wanted = GetParam();
  const auto set = MustCompile(
      {Document("DefaultPolicy", "it", base::StrCat("{default: ", wanted.access, "}"))});
  EXPECT_EQ(set->Authorize(From("spiffe://td/web")).allowed, wanted.own);
  EXPECT_EQ(set->Authorize(From("spiffe://other/web")).allowed, wanted.foreign);
  EXPECT_EQ(set->Authorize(From("none")).allowed, wanted.nobody);
  EXPECT_THAT(set->Authorize(From("none")).rule, HasSubstr("it / default"));
}

INSTANTIATE_TEST_SUITE_P(Words, DefaultTest,
                         ::testing::Values(DefaultCase{"same-trust-domain", true, false, true},
                                           DefaultCase{"any-identity", true, true, false},
                                           DefaultCase{"everybody", true, true, true},
                                           DefaultCase{"nobody", false, false, false}));

TEST(DefaultPolicyTest, GivesWayToRules) {
  const auto set = MustCompile({Document("DefaultPolicy", "it", "{default: everybody}"),
                                Allow("\"spiffe://td/web\"", "enforce")});
  EXPECT_TRUE(set->Authorize(From("spiffe://td/web")).allowed);
  EXPECT_FALSE(set->Authorize(From("spiffe://td/other")).allowed);
  const auto denied = MustCompile({Document("DefaultPolicy", "it", "{default: everybody}"),
                                   Deny("\"spiffe://td/web\"", "enforce")});
  EXPECT_FALSE(denied->Authorize(From("spiffe://td/web")).allowed);
}

TEST(DefaultPolicyTest, IsTakenFromTheMostSpecificWorkload) {
  const auto set = MustCompile(
      {Document("DefaultPolicy", "all", "{default: nobody}"),
       Document("DefaultPolicy", "db", "{workload: spiffe://td/db, default: any-identity}"),
       Document("DefaultPolicy", "web", "{workload: spiffe://td/web, default: everybody}")});
  EXPECT_TRUE(set->Authorize(From("spiffe://other/x")).allowed);
  EXPECT_FALSE(set->Authorize(From("none")).allowed);
  EXPECT_THAT(base::Message(Compile({Document("DefaultPolicy", "a", "{default: nobody}"),
                                     Document("DefaultPolicy", "b", "{default: everybody}")})
                                .status()),
              HasSubstr("file1.yaml:1: spec.workload: DefaultPolicy b is for the same workload"));
}

TEST(DefaultPolicyTest, InAuditModeTellsWhomItWouldRefuse) {
  const auto set = MustCompile({Document("DefaultPolicy", "it", "{default: nobody, mode: audit}")});
  const Decision decision = set->Authorize(From("spiffe://td/web"));
  EXPECT_TRUE(decision.allowed);
  EXPECT_EQ(decision.audit, "it / default: nobody");
  // Rules that are enforced decide by themselves.
  const auto ruled = MustCompile({Document("DefaultPolicy", "it", "{default: nobody, mode: audit}"),
                                  Allow("\"spiffe://td/web\"", "enforce")});
  EXPECT_THAT(ruled->Authorize(From("spiffe://td/web")).audit, IsEmpty());
}

TEST(DefaultPolicyTest, NeedsAWord) {
  EXPECT_THAT(Fault(Document("DefaultPolicy", "it", "{mode: audit}")), HasSubstr("default"));
  EXPECT_THAT(Fault(Document("DefaultPolicy", "it", "{default: deny}")),
              HasSubstr("is not one of: same-trust-domain, any-identity, everybody, nobody"));
}

TEST(ProbeExemptionTest, LetsPlaintextFromThereToThatPortIn) {
  const auto set = MustCompile({Document("ProbeExemption", "kubelet",
                                         "{ports: [8080, 8081], cidrs: [192.0.2.1, 10.1.0.0/16]}"),
                                Document("DefaultPolicy", "it", "{default: nobody}")});
  for (const PeerMode mode : {PeerMode::kStrict, PeerMode::kPermissive}) {
    const Decision probe = set->AuthorizeOn(mode, From("none", 8080, "192.0.2.1"));
    EXPECT_TRUE(probe.allowed);
    EXPECT_EQ(probe.rule, "kubelet / probe exemption");
    EXPECT_TRUE(set->AuthorizeOn(mode, From("none", 8081, "10.1.2.3")).allowed);
    EXPECT_FALSE(set->AuthorizeOn(mode, From("none", 8082, "192.0.2.1")).allowed);
    EXPECT_FALSE(set->AuthorizeOn(mode, From("none", 8080, "192.0.2.2")).allowed);
    // Who shows an identity is judged by it.
    EXPECT_FALSE(set->AuthorizeOn(mode, From("spiffe://td/web", 8080, "192.0.2.1")).allowed);
  }
}

TEST(ProbeExemptionTest, NeedsBothPortsAndAddresses) {
  EXPECT_THAT(Fault(Document("ProbeExemption", "it", "{ports: [8080]}")), HasSubstr("cidrs"));
  EXPECT_THAT(Fault(Document("ProbeExemption", "it", "{cidrs: [10.0.0.0/8]}")), HasSubstr("ports"));
  EXPECT_THAT(Fault(Document("ProbeExemption", "it", "{ports: [], cidrs: [10.0.0.0/8]}")),
              HasSubstr("file0.yaml:4: spec.ports"));
  EXPECT_THAT(Fault(Document("ProbeExemption", "it", "{ports: [80], cidrs: [10.0.0.1/8]}")),
              HasSubstr("spec.cidrs[0]"));
}

TEST(PortModeTest, AStrictPortWantsAnIdentityAndASkippedOneAsksNothing) {
  const auto set = MustCompile({Deny("\"spiffe://td/web\"", "enforce")});
  EXPECT_FALSE(set->AuthorizeOn(PeerMode::kStrict, From("none")).allowed);
  EXPECT_TRUE(set->AuthorizeOn(PeerMode::kPermissive, From("none")).allowed);
  EXPECT_TRUE(set->AuthorizeOn(PeerMode::kOpaque, From("none")).allowed);
  EXPECT_FALSE(set->AuthorizeOn(PeerMode::kDisabled, From("spiffe://td/web")).allowed);
  EXPECT_TRUE(set->AuthorizeOn(PeerMode::kSkip, From("spiffe://td/web")).allowed);
  EXPECT_FALSE(PolicySet::DenyAll()->AuthorizeOn(PeerMode::kPermissive, From("none")).allowed);
}

TEST(PortModeTest, OpaqueAndSkipAreSaidOfSinglePorts) {
  const auto set = MustCompile(
      {Document("PeerMode", "it", "{default: strict, ports: {\"25\": opaque, \"22\": skip}}")});
  EXPECT_EQ(set->ModeOf(25), PeerMode::kOpaque);
  EXPECT_EQ(set->ModeOf(22), PeerMode::kSkip);
  EXPECT_EQ(set->ModeOf(80), PeerMode::kStrict);
  EXPECT_THAT(Fault(Document("PeerMode", "it", "{default: skip}")),
              HasSubstr("spec.default: 'skip' is said of single ports"));
}

TEST(PolicyDocumentTest, RulesKnowTheirLine) {
  const auto documents = ReadPolicyDocuments(
      {"p.yaml",
       "apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"
       "spec:\n  action: ALLOW\n  rules:\n    - from: [{unauthenticated: true}]\n"
       "    - to: [{ports: [80]}]\n"});
  ASSERT_TRUE(documents.ok()) << documents.status();
  const auto& rules = std::get<AuthorizationDocument>(documents->front()).rules;
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(rules[0].line, 7);
  EXPECT_EQ(rules[1].line, 8);
}

}  // namespace
}  // namespace postern::policy
