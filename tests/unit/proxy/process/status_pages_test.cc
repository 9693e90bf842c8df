// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/status_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace postern::process {
namespace {

using Json = nlohmann::json;

TEST(StatusPagesTest, StatusSaysWhatIsMissing) {
  ProcessFacts facts;
  facts.phase = "running";
  facts.missing = {"no policy has come yet"};
  facts.started = absl::FromUnixSeconds(1000);
  facts.now = absl::FromUnixSeconds(1060);
  facts.workers = 2;
  identity::IdentityStatus identity;
  identity.source = "issuer";
  identity.issuer = "198.18.0.1:15012";
  identity.issuer_error = "connection refused";
  const Json page = Json::parse(StatusPage(facts, identity));
  EXPECT_EQ(page["ready"], false);
  EXPECT_EQ(page["missing"][0], "no policy has come yet");
  EXPECT_EQ(page["uptime_seconds"], 60);
  EXPECT_EQ(page["started"], "1970-01-01T00:16:40Z");
  EXPECT_EQ(page["issuer"]["error"], "connection refused");
  // Nothing was ever confirmed.
  EXPECT_TRUE(page["issuer"]["bundle_age_seconds"].is_null());
  EXPECT_EQ(page["issuer"]["stale"], Json({"bundles", "policy", "revocations"}));
  EXPECT_TRUE(page["issuer"]["max_stale_seconds"].is_null());
  EXPECT_TRUE(page["identity"]["obtained"].is_null());
}

TEST(StatusPagesTest, SaysWhatIsStaleAndHowStale) {
  identity::IdentityStatus identity;
  identity.issuer = "198.18.0.1:15012";
  identity.ages = {absl::Seconds(12), absl::Minutes(11), absl::Seconds(45)};
  identity.max_stale = absl::Minutes(10);
  identity.stale_error = "the issuer has not confirmed";
  const Json page = Json::parse(StatusPage({}, identity))["issuer"];
  EXPECT_EQ(page["bundle_age_seconds"], 12);
  EXPECT_EQ(page["policy_age_seconds"], 660);
  EXPECT_EQ(page["revocations_age_seconds"], 45);
  EXPECT_EQ(page["stale"], Json::array({"policy"}));
  EXPECT_EQ(page["max_stale_seconds"], 600);
  EXPECT_EQ(page["stale_error"], "the issuer has not confirmed");
}

TEST(StatusPagesTest, AProxyWithoutIssuerShowsNone) {
  const Json page = Json::parse(StatusPage({}, identity::IdentityStatus()));
  EXPECT_FALSE(page.contains("issuer"));
  EXPECT_EQ(page["ready"], true);
}

TEST(StatusPagesTest, SaysWhetherInterceptionRulesAreInForce) {
  ProcessFacts facts;
  EXPECT_FALSE(Json::parse(StatusPage(facts, {})).contains("intercept_ok"));
  facts.interception = ProcessFacts::Interception{"redirect", "caught", "not_caught", false};
  facts.hints = {"look at the rules"};
  const Json page = Json::parse(StatusPage(facts, {}));
  EXPECT_EQ(page["intercept_ok"], false);
  EXPECT_EQ(page["interception"]["ipv6"], "not_caught");
  EXPECT_EQ(page["hints"], Json::array({"look at the rules"}));
  EXPECT_EQ(page["ready"], true) << "a hint is not what is missing";
  facts.interception->ok = std::nullopt;
  EXPECT_TRUE(Json::parse(StatusPage(facts, {}))["intercept_ok"].is_null());
}

TEST(StatusPagesTest, CertificatesShowTheTimeLeft) {
  identity::IdentityStatus identity;
  identity.spiffe_id = "spiffe://example.org/web";
  identity::CertificateFacts leaf;
  leaf.kind = "leaf";
  leaf.serial = "0a";
  leaf.not_before = absl::FromUnixSeconds(0);
  leaf.not_after = absl::FromUnixSeconds(3600);
  identity.certificates.push_back(leaf);
  const Json page = Json::parse(CertificatesPage(identity, absl::FromUnixSeconds(600)));
  EXPECT_EQ(page["spiffe_id"], "spiffe://example.org/web");
  EXPECT_EQ(page["certificates"][0]["seconds_left"], 3000);
  EXPECT_EQ(page["certificates"][0]["not_after"], "1970-01-01T01:00:00Z");
}

TEST(StatusPagesTest, BytesThatAreNoUtf8DoNotBreakThePage) {
  session::ConnectionInfo connection;
  connection.id = 7;
  connection.peer_id = "spiffe://example.org/\xff\xfe\"\n";
  const Json page = Json::parse(ConnectionsPage({connection}));
  ASSERT_EQ(page.size(), 1U);
  EXPECT_EQ(page[0]["id"], 7);
  EXPECT_EQ(page[0]["direction"], "inbound");
}

}  // namespace
}  // namespace postern::process
