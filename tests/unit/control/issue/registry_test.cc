// SPDX-License-Identifier: Apache-2.0
#include "control/issue/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/attest/attestor.h"
#include "tests/fakes/fake_clock.h"

namespace postern::issue {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}
x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}

class RegistryTest : public ::testing::Test {
 protected:
  void SetUp() override { store_ = *store::OpenMemoryStore(ExampleOrg(), clock_); }
  // Expects a refusal that names `field`.
  void Refuses(store::Entry entry, std::string_view field) {
    const absl::Status status = registry().CreateEntry(std::move(entry)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(field)));
  }
  Registry registry() { return Registry(ExampleOrg(), TtlPolicy{}, *store_, clock_); }
  store::Entry Good() { return {.spiffe_id = Id("/web"), .selectors = {"unix:uid:1"}}; }

  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
};

TEST_F(RegistryTest, StoresSelectorsAndPortsInOneOrder) {
  store::Entry entry = Good();
  entry.selectors = {"unix:uid:01", "unix:gid:2", "unix:uid:1"};
  entry.ports = {443, 80, 443};
  const auto stored = registry().CreateEntry(entry);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_THAT(stored->selectors, ElementsAre("unix:gid:2", "unix:uid:1"));
  EXPECT_THAT(stored->ports, ElementsAre(80, 443));
}

TEST_F(RegistryTest, RefusesWhatNoEntryMayHaveAndNamesTheField) {
  store::Entry entry = Good();
  entry.spiffe_id = *x509::SpiffeId::Parse("spiffe://other.org/web");
  Refuses(entry, "spiffe_id");
  entry.spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org");
  Refuses(entry, "spiffe_id");
  for (const char* reserved : {"/postern", "/postern/identity", "/postern/x/y"}) {
    entry.spiffe_id = Id(reserved);
    Refuses(entry, "kept for Postern");
  }
  entry = Good();
  entry.selectors = {};
  Refuses(entry, "selectors");
  entry.selectors = {"docker:image:x"};
  Refuses(entry, "docker:image:x");
  entry.selectors = {"join-token:abc"};
  Refuses(entry, "token create");
  entry.selectors = std::vector<std::string>(kMaxSelectors + 1, "unix:uid:1");
  Refuses(entry, "selectors");
  entry = Good();
  entry.ports = {0, 80};
  Refuses(entry, "ports");
  entry = Good();
  entry.svid_ttl = absl::Minutes(9);
  Refuses(entry, "svid_ttl_seconds");
  entry.svid_ttl = absl::Hours(25);
  Refuses(entry, "svid_ttl_seconds");
  entry = Good();
  entry.allowed_addresses =
      std::vector<base::Cidr>(kMaxAllowedAddresses + 1, *base::Cidr::Parse("198.18.0.1"));
  Refuses(entry, "allowed_addresses");
  entry = Good();
  entry.services = std::vector<base::ServiceAddress>(kMaxServices + 1,
                                                     *base::ServiceAddress::Parse("10.0.0.1:1"));
  Refuses(entry, "services");
  entry = Good();
  entry.ports = {80};
  entry.services = {*base::ServiceAddress::Parse("10.0.0.1:80=8080")};
  Refuses(entry, "services: 10.0.0.1:80=8080 leads to port 8080, which is not among");
  EXPECT_THAT(*store_->entries().ListEntries(), SizeIs(0));
}

TEST_F(RegistryTest, AMembersKeyStandsAloneInItsEntryAndInOneEntryOnly) {
  const std::string key = "key:sha256:" + std::string(64, 'a');
  store::Entry entry = Good();
  entry.selectors = {key, "unix:uid:1"};
  Refuses(entry, "stands alone");
  entry.selectors = {key, "key:sha256:" + std::string(64, 'b')};
  Refuses(entry, "stands alone");
  entry.selectors = {"key:sha256:" + std::string(64, 'A'), key};  // one key, spelt twice
  const auto stored = registry().CreateEntry(entry);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_THAT(stored->selectors, ElementsAre(key));
  entry.spiffe_id = Id("/db");
  EXPECT_TRUE(absl::IsAlreadyExists(registry().CreateEntry(entry).status()));
}

TEST_F(RegistryTest, AllowsNamesThatOnlyLookReserved) {
  store::Entry entry = Good();
  entry.spiffe_id = Id("/posterns/identity");
  EXPECT_TRUE(registry().CreateEntry(entry).ok());
  EXPECT_FALSE(IsReserved(Id("/web/postern")));
  EXPECT_EQ(IssuerId(ExampleOrg()), Id("/postern/identity"));
  EXPECT_TRUE(IsReserved(IssuerId(ExampleOrg())));
}

TEST_F(RegistryTest, ATokenComesWithItsEntryAndTenMinutes) {
  const auto created = registry().CreateToken({.spiffe_id = Id("/web")}, absl::ZeroDuration());
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->expires_at, clock_.Now() + absl::Minutes(10));
  EXPECT_THAT(*registry().ListEntries("spiffe://example.org/web"), ElementsAre(created->entry));
  EXPECT_TRUE(store_->tokens().UseToken(attest::HashToken(created->token), clock_.Now()).ok());
}

TEST_F(RegistryTest, RefusesATokenWithSelectorsOrAStrangeLifetime) {
  EXPECT_EQ(registry().CreateToken(Good(), absl::ZeroDuration()).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (const absl::Duration ttl :
       {-absl::Seconds(1), absl::Milliseconds(1), kMaxTokenTtl + absl::Seconds(1)}) {
    EXPECT_EQ(registry().CreateToken({.spiffe_id = Id("/web")}, ttl).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(
      registry().CreateToken({.spiffe_id = Id("/postern/x")}, absl::Minutes(1)).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(*store_->entries().ListEntries(), SizeIs(0));
}

TEST_F(RegistryTest, CleansExpiredTokensAndOldCertificates) {
  const auto created = registry().CreateToken({.spiffe_id = Id("/web")}, absl::Minutes(1));
  ASSERT_TRUE(created.ok());
  ASSERT_TRUE(
      store_->certificates()
          .Append(
              {.serial = "1", .spiffe_id = Id("/web"), .not_after = clock_.Now() + absl::Hours(1)})
          .ok());
  clock_.Advance(absl::Hours(24));
  ASSERT_TRUE(registry().CleanUp().ok());
  EXPECT_TRUE(absl::IsNotFound(
      store_->tokens().UseToken(attest::HashToken(created->token), clock_.Now()).status()));
  EXPECT_TRUE(store_->certificates().FindBySerial("1").ok());
  clock_.Advance(absl::Hours(24 * 8));
  ASSERT_TRUE(registry().CleanUp().ok());
  EXPECT_TRUE(absl::IsNotFound(store_->certificates().FindBySerial("1").status()));
  EXPECT_THAT(*registry().ListEntries(""), SizeIs(1)) << "entries stay";
}

TEST_F(RegistryTest, DeletesEntries) {
  const auto entry = registry().CreateEntry(Good());
  EXPECT_TRUE(registry().DeleteEntry(entry->id).ok());
  EXPECT_TRUE(absl::IsNotFound(registry().DeleteEntry(entry->id)));
}

}  // namespace
}  // namespace postern::issue
