// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/wire.h"

#include <gtest/gtest.h>

#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::identity {
namespace {

using Answer = v1::MeshResponse::EndpointUpdate::Answer;

constexpr char kDb[] = "spiffe://example.org/db";

Answer Asked(const char* ip, uint16_t port) {
  Answer answer;
  *answer.mutable_asked() = AddressToWire({base::IpAddress::Parse(ip).value(), port});
  return answer;
}

v1::Endpoint* Add(Answer& answer, uint32_t port, const std::vector<std::string>& ids) {
  v1::Endpoint* endpoint = answer.add_endpoints();
  endpoint->set_port(port);
  endpoint->set_transport(v1::TRANSPORT_DIRECT_TLS);
  for (const auto& id : ids) {
    endpoint->add_spiffe_ids(id);
  }
  return endpoint;
}

std::vector<std::string> Expected(const Answer& wire) {
  const auto answer = AnswerFromWire(wire);
  std::vector<std::string> names;
  for (const auto& pattern : (**answer).expected) {
    names.push_back(pattern.ToString());
  }
  return names;
}

TEST(WireTest, TakesTheRootsThatWereRetiredInOrderByTheirHash) {
  const testing::TestCa ca;
  v1::BundleSet wire;
  v1::TrustBundle* bundle = wire.add_bundles();
  bundle->set_trust_domain("example.org");
  bundle->add_root_der(x509::CertificateToDer(ca.root()));
  bundle->add_retired_root_sha256(std::string(32, 'a'));
  bundle->add_retired_root_sha256("short");
  const auto bundles = BundlesFromWire(wire);
  ASSERT_TRUE(bundles.ok()) << bundles.status();
  base::Sha256Digest expected{};
  expected.fill('a');
  EXPECT_EQ(bundles->Find("example.org")->retired_roots(),
            std::vector<base::Sha256Digest>{expected});
}

TEST(WireTest, TakesAnAnswerWithoutEndpointsForPlaintext) {
  const auto answer = AnswerFromWire(Asked("192.0.2.1", 80));
  ASSERT_TRUE(answer.ok());
  EXPECT_FALSE(answer->has_value());
}

TEST(WireTest, ExpectsExactlyTheIdentitiesOfTheRecord) {
  Answer answer = Asked("192.0.2.1", 80);
  Add(answer, 80, {kDb, "spiffe://example.org/db2"});
  Add(answer, 80, {kDb});
  EXPECT_EQ(Expected(answer), (std::vector<std::string>{kDb, "spiffe://example.org/db2"}));
}

TEST(WireTest, PrefersTheAskedPortOverAnyPort) {
  Answer answer = Asked("192.0.2.1", 80);
  Add(answer, 0, {"spiffe://example.org/any"});
  Add(answer, 80, {kDb});
  EXPECT_EQ(Expected(answer), std::vector<std::string>{kDb});
}

TEST(WireTest, TakesEveryPortWhenNoneWasAskedFor) {
  Answer answer = Asked("192.0.2.1", 0);
  Add(answer, 5432, {kDb});
  EXPECT_EQ(Expected(answer), std::vector<std::string>{kDb});
}

TEST(WireTest, DialsWhereTheRecordSays) {
  Answer answer = Asked("192.0.2.1", 80);
  v1::Endpoint* endpoint = Add(answer, 80, {kDb});
  endpoint->set_connect_address(std::string("\xc0\x00\x02\x09", 4));
  endpoint->set_connect_port(8443);
  const auto destination = AnswerFromWire(answer).value();
  ASSERT_EQ(destination->endpoints.size(), 1U);
  EXPECT_EQ(destination->endpoints[0].ip->ToString(), "192.0.2.9");
  EXPECT_EQ(destination->endpoints[0].port, 8443);
  EXPECT_EQ(destination->endpoints_are, config::EndpointsAre::kWorkloads);
}

TEST(WireTest, KeepsEachPlaceToDialOnce) {
  Answer answer = Asked("192.0.2.1", 80);
  Add(answer, 80, {kDb})->set_connect_port(1);
  Add(answer, 80, {kDb})->set_connect_port(2);
  Add(answer, 80, {kDb})->set_connect_port(1);
  Add(answer, 80, {kDb});
  const auto destination = AnswerFromWire(answer).value();
  ASSERT_EQ(destination->endpoints.size(), 3U);
  EXPECT_EQ(destination->endpoints[1].port, 2);
  EXPECT_EQ(destination->endpoints[2], config::EndpointSpec()) << "what was asked for";
}

TEST(WireTest, SaysNothingOfWhereToDialWhereThatIsWhatWasAskedFor) {
  Answer answer = Asked("192.0.2.1", 80);
  Add(answer, 80, {kDb});
  EXPECT_TRUE(AnswerFromWire(answer).value()->endpoints.empty());
}

TEST(WireTest, NeverTakesWhatItDoesNotUnderstandForPlaintext) {
  std::vector<Answer> odd(6, Asked("192.0.2.1", 80));
  Add(odd[0], 80, {});
  Add(odd[1], 80, {"spiffe://example.org"});
  Add(odd[2], 80, {"https://example.org/db"});
  Add(odd[3], 80, {kDb})->set_transport(v1::TRANSPORT_UNSPECIFIED);
  Add(odd[4], 80, {kDb})->set_connect_address("abc");
  Add(odd[5], 81, {kDb});  // of another port
  for (const Answer& answer : odd) {
    EXPECT_TRUE(absl::IsUnavailable(AnswerFromWire(answer).status())) << answer.DebugString();
  }
}

TEST(WireTest, TurnsMappedAddressesIntoV4) {
  v1::Address wire;
  wire.set_address(std::string("\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16));
  wire.set_port(80);
  EXPECT_EQ(AddressFromWire(wire)->ToString(), "192.0.2.1:80");
}

TEST(WireTest, RefusesWhatIsNoAddress) {
  v1::Address wire;
  wire.set_address("abc");
  EXPECT_FALSE(AddressFromWire(wire).has_value());
  wire.set_address(std::string(4, '\1'));
  wire.set_port(65536);
  EXPECT_FALSE(AddressFromWire(wire).has_value());
}

TEST(WireTest, ReadsBundlesOfSeveralTrustDomains) {
  const testing::TestCa own;
  const testing::TestCa other("other.org");
  v1::BundleSet wire;
  for (const auto* ca : {&own, &other}) {
    auto* bundle = wire.add_bundles();
    bundle->set_trust_domain(ca->trust_domain().name());
    bundle->add_root_der(x509::CertificateToDer(ca->root()));
  }
  const auto set = BundlesFromWire(wire);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->bundles().size(), 2U);
}

TEST(WireTest, RefusesBundlesThatAreNone) {
  const testing::TestCa ca;
  EXPECT_FALSE(BundlesFromWire(v1::BundleSet()).ok());
  v1::BundleSet wire;
  auto* bundle = wire.add_bundles();
  bundle->set_trust_domain("Example.org");
  bundle->add_root_der(x509::CertificateToDer(ca.root()));
  EXPECT_FALSE(BundlesFromWire(wire).ok());
  bundle->set_trust_domain("example.org");
  EXPECT_TRUE(BundlesFromWire(wire).ok());
  const v1::TrustBundle twin = *bundle;
  *wire.add_bundles() = twin;
  EXPECT_FALSE(BundlesFromWire(wire).ok());
  wire.mutable_bundles()->RemoveLast();
  wire.mutable_bundles(0)->set_root_der(0, "rubbish");
  EXPECT_FALSE(BundlesFromWire(wire).ok());
  wire.mutable_bundles(0)->clear_root_der();
  EXPECT_FALSE(BundlesFromWire(wire).ok());
}

TEST(WireTest, OrdersVersionsByEpochFirst) {
  EXPECT_LT((Version{1, 900}), (Version{2, 1}));
  EXPECT_EQ(FromWire(ToWire(Version{3, 4})), (Version{3, 4}));
}

}  // namespace
}  // namespace postern::identity
