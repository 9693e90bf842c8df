// SPDX-License-Identifier: Apache-2.0
#include "control/federation/federation_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/base/strings.h"

namespace postern::federation {
namespace {

using ::testing::HasSubstr;

TEST(HttpsUrlTest, ReadsHostPortAndPath) {
  struct Row {
    std::string text, host;
    uint16_t port;
    std::string path, again;
  };
  const std::vector<Row> rows = {
      {"https://b.example", "b.example", 443, "/", "https://b.example/"},
      {"https://b.example:8443/x?y=1", "b.example", 8443, "/x?y=1", "https://b.example:8443/x?y=1"},
      {"https://b.example?y", "b.example", 443, "/?y", "https://b.example/?y"},
      {"https://192.0.2.1:1/", "192.0.2.1", 1, "/", "https://192.0.2.1:1/"},
      {"https://[fd00:5b::1]:8443", "fd00:5b::1", 8443, "/", "https://[fd00:5b::1]:8443/"},
      {"https://[::1]/", "::1", 443, "/", "https://[::1]/"},
      {"https://[::1]:443/", "::1", 443, "/", "https://[::1]/"},
      {"https://b.example./", "b.example.", 443, "/", "https://b.example./"},
  };
  for (const Row& row : rows) {
    const absl::StatusOr<HttpsUrl> url = HttpsUrl::Parse(row.text);
    ASSERT_TRUE(url.ok()) << row.text << url.status();
    EXPECT_EQ(url->host, row.host);
    EXPECT_EQ(url->port, row.port);
    EXPECT_EQ(url->path, row.path);
    EXPECT_EQ(url->ToString(), row.again);
  }
}

TEST(HttpsUrlTest, RefusesWhatIsNone) {
  for (const char* const bad : {"",
                                "http://b.example/",
                                "https:/b.example",
                                "https://",
                                "https:///x",
                                "https://:443",
                                "https://u@b.example/",
                                "https://u:p@b.example/",
                                "https://b.example/#f",
                                "https://b.example/ x",
                                "https://b.example:0",
                                "https://b.example:65536",
                                "https://b.example:",
                                "https://b.example:8x",
                                "https://b.example:0443",
                                "https://fd00::1:8443",
                                "https://::1/",
                                "https://b..example/",
                                "https://192.0.2.256/",
                                "https://[::1",
                                "https://[b.example]/",
                                "https://[::1]8",
                                "https://b\r\nHost: x/",
                                "https://b.example/\n"}) {
    EXPECT_EQ(HttpsUrl::Parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(HttpsUrl::Parse("https://b.example/" + std::string(3000, 'x')).ok());
}

TEST(FederationSpecTest, ReadsBothProfiles) {
  const auto web = FederationSpec::Parse(
      "trust-domain=b.test,url=https://b.test:8443/bundle,profile=https_web,ca=/ca.pem");
  ASSERT_TRUE(web.ok()) << web.status();
  EXPECT_EQ(web->trust_domain.name(), "b.test");
  EXPECT_EQ(web->profile, Profile::kWeb);
  EXPECT_EQ(web->url.ToString(), "https://b.test:8443/bundle");
  EXPECT_EQ(web->ca_file, "/ca.pem");
  EXPECT_EQ(web->max_age, kDefaultMaxAge);
  EXPECT_EQ(web->on_stale, OnStale::kKeep);
  const auto aged = FederationSpec::Parse(
      "trust-domain=b.test,url=https://b.test,profile=https_web,max-age=90m,on-stale=distrust");
  ASSERT_TRUE(aged.ok()) << aged.status();
  EXPECT_EQ(aged->max_age, absl::Minutes(90));
  EXPECT_EQ(aged->on_stale, OnStale::kDistrust);
  EXPECT_FALSE(web->IsSelfServing());

  const auto spiffe = FederationSpec::Parse(
      "trust-domain=b.test,url=https://192.0.2.1:8443,profile=https_spiffe,"
      "endpoint-id=spiffe://b.test/postern/identity,bundle=/b.json");
  ASSERT_TRUE(spiffe.ok()) << spiffe.status();
  EXPECT_EQ(spiffe->profile, Profile::kSpiffe);
  EXPECT_EQ(spiffe->endpoint_id->uri(), "spiffe://b.test/postern/identity");
  EXPECT_EQ(spiffe->bundle_file, "/b.json");
  EXPECT_TRUE(spiffe->IsSelfServing());

  const auto third = FederationSpec::Parse(
      "trust-domain=b.test,url=https://192.0.2.1:8443,profile=https_spiffe,"
      "endpoint-id=spiffe://c.test/hub");
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_FALSE(third->IsSelfServing());
}

TEST(FederationSpecTest, SaysWhatIsWrong) {
  const std::string web = "trust-domain=b.test,url=https://b.test,profile=https_web";
  const std::string spiffe = "trust-domain=b.test,url=https://b.test,profile=https_spiffe";
  struct Row {
    std::string text, expected;
  };
  const std::vector<Row> rows = {
      {"", "is no part of a federation"},
      {"url=https://b.test,profile=https_web", "trust-domain is missing"},
      {"trust-domain=b.test,profile=https_web", "url is missing"},
      {"trust-domain=b.test,url=https://b.test", "profile is missing"},
      {"trust-domain=B.test,url=https://b.test,profile=https_web", "trust-domain: "},
      {"trust-domain=b.test,url=http://b.test,profile=https_web", "url: "},
      {"trust-domain=b.test,url=https://b.test,profile=web", "'web' is no profile"},
      {web + ",trust-domain=c.test", "trust-domain is given twice"},
      {web + ",ca=", "ca is empty"},
      {web + ",endpoint-id=spiffe://b.test/x", "are for https_spiffe"},
      {web + ",bundle=/x", "are for https_spiffe"},
      {spiffe, "endpoint-id is missing"},
      {spiffe + ",endpoint-id=b.test/x", "endpoint-id: "},
      {spiffe + ",endpoint-id=spiffe://b.test", "lacks a path"},
      {spiffe + ",endpoint-id=spiffe://b.test/x,ca=/x", "ca is for https_web"},
      {web + ",colour=red", "'colour=red' is no part"},
      {web + ",max-age=soon", "max-age: 'soon' is no duration"},
      {web + ",max-age=2m", "max-age: '2m' is no duration from 3m"},
      {web + ",on-stale=maybe", "'maybe' is no value of on-stale"},
  };
  for (const Row& row : rows) {
    const auto spec = FederationSpec::Parse(row.text);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << row.text;
    EXPECT_THAT(std::string(base::Message(spec.status())), HasSubstr(row.expected)) << row.text;
  }
}

}  // namespace
}  // namespace postern::federation
