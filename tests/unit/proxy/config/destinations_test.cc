// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/destinations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::config {
namespace {

using testing::HasSubstr;

std::string Destination(const std::string& spec) {
  return "apiVersion: postern.dev/v1\nkind: Destination\nmetadata: {name: d}\nspec:\n  {" + spec +
         "}\n";
}

DestinationSet MustRead(const std::vector<std::string>& specs) {
  std::string yaml;
  for (const std::string& spec : specs) {
    yaml += "---\n" + Destination(spec);
  }
  auto set = DestinationSet::FromYaml(yaml, "d.yaml");
  EXPECT_TRUE(set.ok()) << set.status();
  return set.ok() ? *std::move(set) : DestinationSet();
}

std::string Expected(const DestinationSet& set, std::string_view ip, uint16_t port) {
  const auto found = set.Find(*base::IpAddress::Parse(ip), port);
  return found ? found->expected.front().ToString() : "";
}

// "HOST PORT".
std::string Text(const EndpointSpec& endpoint) {
  return base::StrCat(endpoint.ip ? endpoint.ip->ToString() : endpoint.name, " ", endpoint.port);
}

TEST(DestinationSetTest, FindsTheMostSpecific) {
  const DestinationSet set = MustRead({
      "addresses: [10.0.0.0/8], spiffeIds: [spiffe://td/wide]",
      "addresses: [10.0.0.7], spiffeIds: [spiffe://td/any-port]",
      "addresses: [10.0.0.7], ports: [5432], spiffeIds: [spiffe://td/port]",
      "addresses: [10.0.0.7], ports: [5432], spiffeIds: [spiffe://td/second]",
      "addresses: [10.0.0.8], ports: [80], spiffeIds: [spiffe://td/eighty]",
      "addresses: [\"fd00:5b::/32\"], spiffeIds: [spiffe://td/six]",
  });
  EXPECT_EQ(Expected(set, "10.0.0.7", 5432), "spiffe://td/port");
  EXPECT_EQ(Expected(set, "10.0.0.7", 1), "spiffe://td/any-port");
  EXPECT_EQ(Expected(set, "10.0.0.8", 80), "spiffe://td/eighty");
  EXPECT_EQ(Expected(set, "10.0.0.8", 81), "spiffe://td/wide");
  EXPECT_EQ(Expected(set, "::ffff:10.1.1.1", 81), "spiffe://td/wide");
  EXPECT_EQ(Expected(set, "fd00:5b::1", 1), "spiffe://td/six");
  EXPECT_EQ(Expected(set, "11.0.0.1", 1), "");
  EXPECT_FALSE(set.empty());
  EXPECT_TRUE(DestinationSet().empty());
}

TEST(DestinationSetTest, ReadsPins) {
  const std::string one = "sha256:" + std::string(64, '1');
  const std::string two = "sha256:" + std::string(64, '2');
  const DestinationSet set = MustRead({
      "addresses: [10.0.0.7], spiffeIds: [spiffe://td/a], pins: {caSha256: ['" + one + "', '" +
          two + "'], keySha256: ['" + two + "']}",
      "addresses: [10.0.0.8], spiffeIds: [spiffe://td/b], pins: {keySha256: ['" + one + "']}",
      "addresses: [10.0.0.9], spiffeIds: [spiffe://td/c]",
  });
  const auto both = set.Find(*base::IpAddress::Parse("10.0.0.7"), 1);
  ASSERT_NE(both->pins, nullptr);
  EXPECT_EQ(both->pins->ca_sha256.size(), 2U);
  EXPECT_EQ(x509::PinText(both->pins->key_sha256.at(0)), two);
  const auto key = set.Find(*base::IpAddress::Parse("10.0.0.8"), 1);
  ASSERT_NE(key->pins, nullptr);
  EXPECT_TRUE(key->pins->ca_sha256.empty());
  EXPECT_EQ(set.Find(*base::IpAddress::Parse("10.0.0.9"), 1)->pins, nullptr);
}

TEST(DestinationSetTest, RefusesPinsThatPinNothing) {
  const std::string start = "addresses: [10.0.0.7], spiffeIds: [spiffe://td/a], pins: ";
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"{}", "pins nothing"},
      {"{caSha256: []}", "caSha256"},
      {"{caSha256: [abc]}", "'abc' is no pin"},
      {"{keySha256: abc}", "keySha256"},
      {"{spkiSha256: [abc]}", "spkiSha256"},
      {"yes", "pins"},
  };
  for (const auto& [pins, expected] : rows) {
    const auto set = DestinationSet::FromYaml(Destination(start + pins), "d.yaml");
    EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument) << pins;
    EXPECT_THAT(std::string(base::Message(set.status())), HasSubstr(expected)) << pins;
  }
}

TEST(DestinationSetTest, FallsBackToAWiderRangeAndKeepsTheFirstInTheFile) {
  const DestinationSet set = MustRead({
      "addresses: [10.0.0.7], ports: [1, 2], spiffeIds: [spiffe://td/first]",
      "addresses: [10.0.0.7, 10.0.0.9], ports: [2, 3], spiffeIds: [spiffe://td/second]",
      "addresses: [0.0.0.0/0], spiffeIds: [spiffe://td/all]",
      "addresses: [10.0.0.0/24], ports: [4], spiffeIds: [spiffe://td/range]",
      "addresses: [0.0.0.0/0], spiffeIds: [spiffe://td/all-again]",
  });
  EXPECT_EQ(Expected(set, "10.0.0.7", 2), "spiffe://td/first");
  EXPECT_EQ(Expected(set, "10.0.0.7", 3), "spiffe://td/second");
  EXPECT_EQ(Expected(set, "10.0.0.9", 2), "spiffe://td/second");
  EXPECT_EQ(Expected(set, "10.0.0.7", 4), "spiffe://td/range");
  EXPECT_EQ(Expected(set, "10.0.0.7", 5), "spiffe://td/all");
  EXPECT_EQ(Expected(set, "192.0.2.1", 4), "spiffe://td/all");
  EXPECT_EQ(Expected(set, "::1", 4), "") << "0.0.0.0/0 is of IPv4";
}

TEST(DestinationSetTest, ReadsWhereToConnect) {
  struct Row {
    std::string text, expected;
  };
  for (const Row& row : std::vector<Row>{{"192.0.2.8:15432", "192.0.2.8 15432"},
                                         {"\"[fd00::8]:1\"", "fd00::8 1"},
                                         {"192.0.2.8", "192.0.2.8 0"},
                                         {"\"fd00::8\"", "fd00::8 0"},
                                         {"\"[fd00::8]\"", "fd00::8 0"},
                                         {"\"[::ffff:192.0.2.8]:1\"", "192.0.2.8 1"},
                                         {"db.example.org:1", "db.example.org 1"},
                                         {"\":9\"", " 9"}}) {
    const auto set =
        MustRead({"addresses: [192.0.2.7], spiffeIds: [spiffe://td/a], connectTo: " + row.text});
    const auto found = set.Find(*base::IpAddress::Parse("192.0.2.7"), 5);
    ASSERT_TRUE(found.has_value());
    ASSERT_EQ(found->endpoints.size(), 1U);
    EXPECT_EQ(Text(found->endpoints[0]), row.expected);
  }
}

TEST(DestinationSetTest, ReadsSeveralEndpoints) {
  const DestinationSet set = MustRead(
      {"addresses: [192.0.2.7], spiffeIds: [spiffe://td/a], endpoints: ['192.0.2.8:15432', "
       "'[fd00::8]:1', DB-2.example.org, 'db-3:9', ':7']",
       "addresses: [192.0.2.9], spiffeIds: [spiffe://td/a]"});
  const auto found = set.Find(*base::IpAddress::Parse("192.0.2.7"), 5);
  ASSERT_TRUE(found.has_value());
  std::string all;
  for (const EndpointSpec& endpoint : found->endpoints) {
    all += Text(endpoint) + ",";
  }
  EXPECT_EQ(all, "192.0.2.8 15432,fd00::8 1,db-2.example.org 0,db-3 9, 7,");
  EXPECT_TRUE(set.Find(*base::IpAddress::Parse("192.0.2.9"), 5)->endpoints.empty());
}

TEST(DestinationSetTest, FindsByName) {
  const DestinationSet set = MustRead({
      "names: [DB.example.org, other], ports: [5432], spiffeIds: [spiffe://td/db]",
      "names: [db.example.org], spiffeIds: [spiffe://td/rest]",
      "names: [both.example.org], addresses: [192.0.2.7], spiffeIds: [spiffe://td/both]",
  });
  const auto expected = [&set](std::string_view name, uint16_t port) {
    const auto found = set.FindName(name, port);
    return found ? found->expected.front().ToString() : "";
  };
  EXPECT_EQ(expected("db.example.org", 5432), "spiffe://td/db");
  EXPECT_EQ(expected("Db.Example.Org.", 5432), "spiffe://td/db");
  EXPECT_EQ(expected("db.example.org", 1), "spiffe://td/rest");
  EXPECT_EQ(expected("other", 1), "");
  EXPECT_EQ(expected("example.org", 5432), "");
  EXPECT_EQ(expected("both.example.org", 1), "spiffe://td/both");
  EXPECT_EQ(Expected(set, "192.0.2.7", 1), "spiffe://td/both");
}

TEST(DestinationSetTest, NamesFileLineAndFieldOfAFault) {
  struct Row {
    std::string yaml, expected;
  };
  const std::string good = "addresses: [10.0.0.1], spiffeIds: [spiffe://td/a]";
  const std::vector<Row> rows = {
      {Destination("spiffeIds: [spiffe://td/a]"), "d.yaml:5: spec.addresses: missing"},
      {Destination("addresses: [10.0.0.1]"), "spec.spiffeIds: missing"},
      {Destination("addresses: [10.0.0.1], spiffeIds: []"), "spec.spiffeIds: is empty"},
      {Destination("addresses: [10.0.0.1], spiffeIds: [\"spiffe://td/*\"]"), "without '*'"},
      {Destination("addresses: [db], spiffeIds: [spiffe://td/a]"), "spec.addresses[0]: "},
      {Destination(good + ", ports: [x]"), "spec.ports[0]: 'x' is no port"},
      {Destination(good + ", connectTo: 'd b:1'"), "spec.connectTo: 'd b:1' is no address"},
      {Destination(good + ", endpoints: []"), "spec.endpoints: is empty"},
      {Destination(good + ", endpoints: ['10.0.0.1:1', '*:1']"),
       "d.yaml:5: spec.endpoints[1]: '*:1'"},
      {Destination(good + ", endpoints: ['db:1', 'DB:1']"), "names its endpoint 2 twice"},
      {Destination(good + ", endpoints: ['db:1'], connectTo: 'db:1'"), "spec.connectTo: says with"},
      {Destination("names: ['*.db'], spiffeIds: [spiffe://td/a]"),
       "spec.names[0]: '*.db' is no host"},
      {Destination("names: [10.0.0.1], spiffeIds: [spiffe://td/a]"), "spec.names[0]: "},
      {Destination("names: [], spiffeIds: [spiffe://td/a]"), "spec.names: is empty"},
      {Destination(good + ", connectTo: 10.0.0.1:0"), "is no address"},
      {Destination(good + ", connectTo: \"[10.0.0.1]:1\""), "is no address"},
      {Destination(good + ", connectTo: \"::1:1:\""), "is no address"},
      {Destination(good + ", connectTo: \"fd00:5b::1:80\""),
       "spec.connectTo: 'fd00:5b::1:80' is no address: without brackets it is ambiguous"},
      {Destination(good + ", conectTo: 10.0.0.1:1"), "spec.conectTo: unknown field"},
      {Destination(good + ", ports: [1], ports: [2]"), "ports: stands twice"},
      {"apiVersion: postern.dev/v1\nkind: PeerMode\nmetadata: {name: d}\nspec: {}\n",
       "d.yaml:2: kind: is 'PeerMode'"},
      {"", "holds no document"},
  };
  for (const Row& row : rows) {
    const auto set = DestinationSet::FromYaml(row.yaml, "d.yaml");
    EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument) << row.yaml;
    EXPECT_THAT(std::string(base::Message(set.status())), HasSubstr(row.expected));
  }
}

}  // namespace
}  // namespace postern::config
