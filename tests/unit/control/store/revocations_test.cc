// SPDX-License-Identifier: Apache-2.0
// Revocations in the store, over the in-memory one and a file that is opened again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/base/strings.h"
#include "control/store/database.h"
#include "control/store/schema.h"
#include "control/store/store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::store {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using x509::Revocation;
using x509::RevokedBy;

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}
x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}

class RevocationStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { store_ = *OpenMemoryStore(ExampleOrg(), clock_); }

  Entry NewEntry(std::string_view path) {
    return *store_->entries().CreateEntry(
        Entry{.spiffe_id = Id(path), .selectors = {base::StrCat("unix:uid:", ++uid_)}});
  }
  void Log(const std::string& serial, const Entry& entry, absl::Duration ttl) {
    IssuedCertificate certificate{.serial = serial, .spiffe_id = entry.spiffe_id};
    certificate.entry_id = entry.id;
    certificate.ca_id = "ca";
    certificate.not_before = clock_.Now();
    certificate.not_after = clock_.Now() + ttl;
    certificate.issued_at = clock_.Now();
    certificate.key_sha256.fill(static_cast<uint8_t>(serial.back()));
    ASSERT_TRUE(store_->certificates().Append(certificate).ok());
  }
  Revocation Revoke(RevokedBy by, std::string_view subject,
                    absl::Time forget_at = absl::InfiniteFuture()) {
    const auto made = store_->revocations().Revoke(
        {.by = by, .subject = std::string(subject), .reason = "stolen", .forget_at = forget_at});
    EXPECT_TRUE(made.ok()) << made.status();
    return *made;
  }
  RevocationList List() { return *store_->revocations().ListRevocations(); }

  fakes::FakeClock clock_;
  std::unique_ptr<Store> store_;
  int uid_ = 0;
};

TEST_F(RevocationStoreTest, BeginsEmptyWithAVersion) {
  EXPECT_THAT(List().revocations, IsEmpty());
  EXPECT_EQ(List().version, (Version{store_->epoch(), 1}));
}

TEST_F(RevocationStoreTest, EachRevocationMakesANewVersionAndCarriesItsNumber) {
  const Revocation first = Revoke(RevokedBy::kSpiffeId, "spiffe://example.org/web");
  const Revocation second = Revoke(RevokedBy::kSerial, "a1", clock_.Now() + absl::Hours(1));
  EXPECT_EQ(first.sequence, 2U);
  EXPECT_EQ(second.sequence, 3U);
  EXPECT_EQ(first.revoked_at, clock_.Now());
  const RevocationList list = List();
  EXPECT_EQ(list.version.sequence, 3U);
  ASSERT_THAT(list.revocations, SizeIs(2));
  EXPECT_EQ(list.revocations[0], first);
  EXPECT_EQ(list.revocations[1], second);
}

TEST_F(RevocationStoreTest, WhatIsRevokedAgainStandsOnceUnderItsNewNumber) {
  Revoke(RevokedBy::kSerial, "a1");
  const Revocation again = Revoke(RevokedBy::kSerial, "a1");
  ASSERT_THAT(List().revocations, SizeIs(1));
  EXPECT_EQ(List().revocations[0].sequence, again.sequence);
}

TEST_F(RevocationStoreTest, LiftTakesBackWhatCameWithANumber) {
  const Revocation one = Revoke(RevokedBy::kSerial, "a1");
  Revoke(RevokedBy::kSerial, "a2");
  const auto lifted = store_->revocations().Lift(one.sequence);
  ASSERT_TRUE(lifted.ok()) << lifted.status();
  EXPECT_THAT(*lifted, SizeIs(1));
  EXPECT_THAT(List().revocations, SizeIs(1));
  EXPECT_EQ(List().version.sequence, 4U);
  EXPECT_TRUE(absl::IsNotFound(store_->revocations().Lift(one.sequence).status()));
  EXPECT_EQ(List().version.sequence, 4U) << "nothing was changed";
}

TEST_F(RevocationStoreTest, ForgetsWhatCanNameNothingThatLives) {
  Revoke(RevokedBy::kSerial, "a1", clock_.Now() + absl::Hours(1));
  Revoke(RevokedBy::kSpiffeId, "spiffe://example.org/web");
  EXPECT_EQ(*store_->revocations().Forget(clock_.Now() + absl::Minutes(59)), 0U);
  EXPECT_EQ(List().version.sequence, 3U);
  EXPECT_EQ(*store_->revocations().Forget(clock_.Now() + absl::Hours(1)), 1U);
  EXPECT_EQ(List().version.sequence, 4U);
  ASSERT_THAT(List().revocations, SizeIs(1));
  EXPECT_EQ(List().revocations[0].by, RevokedBy::kSpiffeId);
  EXPECT_EQ(*store_->revocations().Forget(clock_.Now() + absl::Hours(24 * 365)), 0U)
      << "a ban stays";
}

TEST_F(RevocationStoreTest, ADeletedEntryTakesItsLivingCertificatesAlong) {
  const Entry web = NewEntry("/web");
  const Entry twin = NewEntry("/web");  // the same identity, another entry
  Log("0a01", web, absl::Hours(1));
  Log("0a02", web, absl::Hours(2));
  Log("0a03", web, absl::Seconds(1));
  Log("0a04", twin, absl::Hours(1));
  clock_.Advance(absl::Minutes(1));
  ASSERT_TRUE(store_->entries().DeleteEntry(web.id).ok());
  const RevocationList list = List();
  ASSERT_THAT(list.revocations, SizeIs(2));
  EXPECT_EQ(list.version.sequence, 2U) << "one version for all of them";
  for (const Revocation& one : list.revocations) {
    EXPECT_EQ(one.by, RevokedBy::kSerial);
    EXPECT_EQ(one.sequence, 2U);
    EXPECT_THAT(one.reason, HasSubstr(web.id));
    EXPECT_EQ(one.revoked_at, clock_.Now());
    EXPECT_GT(one.forget_at, clock_.Now() + absl::Hours(1));
  }
  EXPECT_EQ(list.revocations[0].subject, "a01") << "canonical";
  EXPECT_TRUE(absl::IsNotFound(store_->entries().DeleteEntry(web.id)));
  EXPECT_EQ(List().version.sequence, 2U);
}

TEST_F(RevocationStoreTest, AnEntryWithoutCertificatesChangesNothing) {
  ASSERT_TRUE(store_->entries().DeleteEntry(NewEntry("/idle").id).ok());
  EXPECT_EQ(List().version.sequence, 1U);
}

TEST_F(RevocationStoreTest, CountsWhatARevocationWouldName) {
  const Entry web = NewEntry("/web");
  Log("0a01", web, absl::Hours(1));
  Log("0b02", web, absl::Hours(2));
  RevocationStore& revocations = store_->revocations();
  const auto by_id = *revocations.CountNamed(RevokedBy::kSpiffeId, web.spiffe_id.uri());
  EXPECT_EQ(by_id.living, 2U);
  EXPECT_EQ(by_id.last_not_after, clock_.Now() + absl::Hours(2));
  EXPECT_EQ(revocations.CountNamed(RevokedBy::kSerial, "a01")->living, 1U);
  EXPECT_EQ(revocations.CountNamed(RevokedBy::kSerial, "ff")->living, 0U);
  base::Sha256Digest key;
  key.fill(static_cast<uint8_t>('2'));
  EXPECT_EQ(revocations.CountNamed(RevokedBy::kKey, base::ToHex(key))->living, 1U);
  EXPECT_EQ(revocations.CountNamed(RevokedBy::kIssuer, base::ToHex(key))->living, 0U);
  clock_.Advance(absl::Hours(3));
  EXPECT_EQ(revocations.CountNamed(RevokedBy::kSpiffeId, web.spiffe_id.uri())->living, 0U);
}

TEST_F(RevocationStoreTest, AMembersKeyTakesWhatItsEntryWasIssuedAlong) {
  const std::string key(64, 'e');
  const Entry laptop = *store_->entries().CreateEntry(
      {.spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/laptop"),
       .selectors = {base::StrCat("key:sha256:", key)}});
  const Entry web = NewEntry("/web");
  Log("0a01", laptop, absl::Hours(1));
  Log("0a02", laptop, absl::Hours(2));
  Log("0a03", laptop, absl::Seconds(1));
  Log("0a04", web, absl::Hours(1));
  const Revocation before = Revoke(RevokedBy::kSerial, "a01");
  clock_.Advance(absl::Minutes(1));
  const auto named = *store_->revocations().CountNamed(RevokedBy::kKey, key);
  EXPECT_TRUE(named.enrolled);
  EXPECT_EQ(named.living, 2U);
  EXPECT_EQ(named.last_not_after, clock_.Now() + absl::Hours(2) - absl::Minutes(1));
  EXPECT_FALSE(*store_->revocations().IsRevoked(RevokedBy::kKey, key));
  const Revocation made = Revoke(RevokedBy::kKey, key);
  EXPECT_TRUE(*store_->revocations().IsRevoked(RevokedBy::kKey, key));
  EXPECT_FALSE(*store_->revocations().IsRevoked(RevokedBy::kSerial, key));
  ASSERT_THAT(List().revocations, SizeIs(3)) << "the key, its living one, and the one from before";
  EXPECT_EQ(List().version.sequence, made.sequence) << "one version for all of them";
  ASSERT_TRUE(store_->revocations().Lift(made.sequence).ok());
  ASSERT_THAT(List().revocations, SizeIs(1));
  EXPECT_EQ(List().revocations[0].sequence, before.sequence) << "that one was no part of it";
}

TEST_F(RevocationStoreTest, AnotherSignerMakesANewVersion) {
  EXPECT_FALSE(*store_->revocations().SetSigner("first"));
  EXPECT_FALSE(*store_->revocations().SetSigner("first"));
  EXPECT_EQ(List().version.sequence, 1U);
  EXPECT_TRUE(*store_->revocations().SetSigner("second"));
  EXPECT_EQ(List().version.sequence, 2U);
}

TEST_F(RevocationStoreTest, AreThereAgainAfterARestart) {
  const postern::testing::TempDir dir;
  {
    const auto store = OpenSqliteStore(dir.path(), ExampleOrg(), clock_);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE((*store)->revocations().Revoke({.by = RevokedBy::kSerial, .subject = "a1"}).ok());
  }
  const auto again = OpenSqliteStore(dir.path(), ExampleOrg(), clock_);
  ASSERT_TRUE(again.ok()) << again.status();
  const auto list = (*again)->revocations().ListRevocations();
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->revocations, SizeIs(1));
  EXPECT_EQ(list->version, (Version{(*again)->epoch(), 2}));
}

TEST_F(RevocationStoreTest, AStoreOfTheReleaseBeforeGetsTheTable) {
  const postern::testing::TempDir dir;
  const std::string path = dir.path() + "/old.db";
  auto connection = Connection::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(Migrate(**connection, Migrations().first(1), path, clock_.Now()).ok());
  EXPECT_FALSE((*connection)->Execute("SELECT * FROM revocations").ok());
  ASSERT_TRUE(Migrate(**connection, Migrations(), path, clock_.Now()).ok());
  EXPECT_TRUE((*connection)->Execute("SELECT * FROM revocations").ok());
}

}  // namespace
}  // namespace postern::store
