// SPDX-License-Identifier: Apache-2.0
// Addresses that several workloads share: one endpoint for each of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "control/mesh/directory.h"
#include "control/mesh/mesh_state.h"
#include "tests/fakes/fake_clock.h"

namespace postern::mesh {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kDb[] = "spiffe://example.org/db";

Address At(std::string_view ip, uint16_t port) {
  return {*base::IpAddress::Parse(ip), port};
}
std::vector<base::ServiceAddress> Services(std::vector<std::string_view> texts) {
  std::vector<base::ServiceAddress> services;
  for (const std::string_view text : texts) {
    services.push_back(*base::ServiceAddress::Parse(text));
  }
  return services;
}
std::vector<std::string> Places(const std::vector<Endpoint>& endpoints) {
  std::vector<std::string> places;
  for (const Endpoint& endpoint : endpoints) {
    EXPECT_TRUE(endpoint.connect.has_value());
    if (endpoint.connect.has_value()) {
      places.push_back(endpoint.connect->ip.ToString() + " " +
                       std::to_string(endpoint.connect->port));
    }
  }
  return places;
}

TEST(ServicesTest, AServiceIsEachPlaceOfEachEntryThatNamesIt) {
  Directory directory;
  directory.Publish("1", {kDb, {At("198.18.0.2", 15432)}, Services({"10.96.0.10:5432=15432"})});
  directory.Publish("2", {kDb,
                          {At("198.18.0.1", 15432), At("198.18.0.3", 0), At("198.18.0.4", 80)},
                          Services({"10.96.0.10:5432=15432", "10.96.0.10:80"})});
  const auto endpoints = directory.Lookup(At("10.96.0.10", 5432));
  EXPECT_THAT(Places(endpoints),
              ElementsAre("198.18.0.1 15432", "198.18.0.2 15432", "198.18.0.3 15432"));
  for (const Endpoint& endpoint : endpoints) {
    EXPECT_EQ(endpoint.address, At("10.96.0.10", 5432));
    EXPECT_THAT(endpoint.spiffe_ids, ElementsAre(kDb));
  }
  EXPECT_THAT(Places(directory.Lookup(At("10.96.0.10", 80))),
              ElementsAre("198.18.0.3 80", "198.18.0.4 80"));
  EXPECT_THAT(directory.Lookup(At("10.96.0.10", 81)), IsEmpty());
  EXPECT_THAT(directory.Lookup(At("10.96.0.10", 0)), IsEmpty()) << "no connection comes from it";
  ASSERT_THAT(directory.Lookup(At("198.18.0.2", 15432)), SizeIs(1));
  EXPECT_FALSE(directory.Lookup(At("198.18.0.2", 15432))[0].connect.has_value());
}

TEST(ServicesTest, EachPlaceHasTheIdentitiesThatAreThere) {
  Directory directory;
  directory.Publish(
      "1", {"spiffe://example.org/b", {At("198.18.0.1", 80)}, Services({"10.96.0.10:80"})});
  directory.Publish("2", {"spiffe://example.org/a",
                          {At("198.18.0.1", 80), At("198.18.0.2", 80)},
                          Services({"10.96.0.10:80"})});
  const auto endpoints = directory.Lookup(At("10.96.0.10", 80));
  ASSERT_THAT(endpoints, SizeIs(2));
  EXPECT_THAT(endpoints[0].spiffe_ids,
              ElementsAre("spiffe://example.org/a", "spiffe://example.org/b"));
  EXPECT_THAT(endpoints[1].spiffe_ids, ElementsAre("spiffe://example.org/a"));
}

TEST(ServicesTest, AServiceWithoutAPlaceIsStillOfTheMesh) {
  Directory directory;
  directory.Publish("1", {kDb, {}, Services({"10.96.0.10:5432"})});
  directory.Publish("2", {kDb, {At("198.18.0.1", 80)}, Services({"10.96.0.10:5432"})});
  const auto endpoints = directory.Lookup(At("10.96.0.10", 5432));
  ASSERT_THAT(endpoints, SizeIs(1));
  EXPECT_FALSE(endpoints[0].connect.has_value());
  EXPECT_THAT(endpoints[0].spiffe_ids, ElementsAre(kDb));
}

TEST(ServicesTest, PrefersTheFamilyThatWasAskedFor) {
  Directory directory;
  directory.Publish("1", {kDb,
                          {At("198.18.0.1", 80), At("2001:db8::1", 80)},
                          Services({"10.96.0.10:80", "[2001:db8::10]:80"})});
  directory.Publish(
      "2", {kDb, {At("2001:db8::2", 80)}, Services({"10.96.0.10:80", "[2001:db8::10]:80"})});
  EXPECT_THAT(Places(directory.Lookup(At("10.96.0.10", 80))),
              ::testing::UnorderedElementsAre("198.18.0.1 80", "2001:db8::2 80"));
  EXPECT_THAT(Places(directory.Lookup(At("2001:db8::10", 80))),
              ElementsAre("2001:db8::1 80", "2001:db8::2 80"));
}

TEST(ServicesTest, SaysWhichAnswersAChangeTouches) {
  Directory directory;
  const Directory::Published one{kDb, {At("198.18.0.1", 80)}, Services({"10.96.0.10:80"})};
  EXPECT_THAT(directory.Affected("1", one),
              ElementsAre(At("10.96.0.10", 0).ip, At("198.18.0.1", 0).ip));
  directory.Publish("1", one);
  EXPECT_THAT(directory.Affected("1", one), IsEmpty());
  Directory::Published other = one;
  other.services = Services({"10.96.0.11:80"});
  EXPECT_THAT(directory.Affected("1", other),
              ElementsAre(At("10.96.0.10", 0).ip, At("10.96.0.11", 0).ip));
  other = one;
  other.addresses = {At("198.18.0.2", 80)};
  EXPECT_THAT(directory.Affected("1", other),
              ElementsAre(At("10.96.0.10", 0).ip, At("198.18.0.1", 0).ip, At("198.18.0.2", 0).ip));
  directory.Publish("1", {});
  EXPECT_THAT(directory.Lookup(At("10.96.0.10", 80)), IsEmpty());
  EXPECT_THAT(directory.Lookup(At("198.18.0.1", 80)), IsEmpty());
}

TEST(ServicesTest, AServiceHasOnlySoManyPlaces) {
  Directory directory;
  for (size_t i = 0; i <= Directory::kMostPlaces; ++i) {
    directory.Publish(
        std::to_string(i),
        {kDb, {At("198.18.0." + std::to_string(i), 80)}, Services({"10.96.0.10:80"})});
  }
  EXPECT_THAT(directory.Lookup(At("10.96.0.10", 80)), SizeIs(Directory::kMostPlaces));
}

TEST(ServicesTest, ASubscriberOfAServiceHearsOfItsPlaces) {
  fakes::FakeClock clock;
  const auto store = *store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock);
  const auto state = *MeshState::Create(*store, clock);
  const auto add = [&](const char* uid, bool serves) {
    store::Entry entry{.spiffe_id = *x509::SpiffeId::Parse(kDb), .selectors = {uid}};
    entry.publish_connection_address = true;
    entry.services = serves ? Services({"10.96.0.10:5432"}) : entry.services;
    entry = *store->entries().CreateEntry(entry);
    EXPECT_TRUE(state->ReloadEntry(entry.id).ok());
    return entry;
  };
  const store::Entry client = add("unix:uid:1", false), db = add("unix:uid:2", true);
  std::atomic<int> wakes{0};
  const auto asker =
      *state->Connect({client.spiffe_id, client.id, At("198.18.0.9", 0).ip}, [&wakes] { ++wakes; });
  asker->Take();
  ASSERT_TRUE(asker->Subscribe(std::vector<Address>{At("10.96.0.10", 5432)}).ok());
  Updates first = asker->Take();
  ASSERT_TRUE(first.endpoints.has_value());
  EXPECT_FALSE(first.endpoints->answers.at(0).endpoints.at(0).connect.has_value());

  const auto served = *state->Connect({db.spiffe_id, db.id, At("198.18.0.1", 0).ip}, [] {});
  ASSERT_TRUE(served->SetServing(std::vector<Serving>{{.port = 0}}).ok());
  EXPECT_EQ(wakes, 1);
  Updates second = asker->Take();
  ASSERT_TRUE(second.endpoints.has_value());
  EXPECT_THAT(Places(second.endpoints->answers.at(0).endpoints), ElementsAre("198.18.0.1 5432"));

  ASSERT_TRUE(store->entries().DeleteEntry(db.id).ok());
  ASSERT_TRUE(state->ReloadEntry(db.id).ok());
  EXPECT_EQ(wakes, 2);
  Updates third = asker->Take();
  ASSERT_TRUE(third.endpoints.has_value());
  EXPECT_THAT(third.endpoints->answers.at(0).endpoints, IsEmpty());
}

}  // namespace
}  // namespace postern::mesh
