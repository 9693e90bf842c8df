// SPDX-License-Identifier: Apache-2.0
// What every store promises, over the in-memory one.
#include "control/store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "tests/fakes/fake_clock.h"

namespace postern::store {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}
x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}
base::Sha256Digest Digest(uint8_t fill) {
  base::Sha256Digest digest;
  digest.fill(fill);
  return digest;
}

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = OpenMemoryStore(ExampleOrg(), clock_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  absl::StatusOr<Entry> Create(std::string_view path, std::vector<std::string> selectors) {
    return store_->entries().CreateEntry(
        Entry{.spiffe_id = Id(path), .selectors = std::move(selectors)});
  }
  IssuedCertificate Certificate(std::string serial, absl::Time not_after) {
    return IssuedCertificate{.serial = std::move(serial),
                             .spiffe_id = Id("/a"),
                             .entry_id = "e",
                             .ca_id = "c",
                             .not_before = clock_.Now(),
                             .not_after = not_after,
                             .issued_at = clock_.Now(),
                             .key_sha256 = Digest(1),
                             .leaf_sha256 = Digest(2)};
  }

  fakes::FakeClock clock_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, ReturnsAnEntryAsItWasStored) {
  const Entry wanted{
      .spiffe_id = Id("/web"),
      .selectors = {"unix:gid:7", "unix:uid:1000"},
      .allowed_addresses = {*base::Cidr::Parse("198.18.0.7"), *base::Cidr::Parse("fd00:5b::/32")},
      .publish_connection_address = true,
      .ports = {80, 65535},
      .services = {*base::ServiceAddress::Parse("10.96.0.10:80"),
                   *base::ServiceAddress::Parse("[2001:db8::10]:8080=65535")},
      .svid_ttl = absl::Seconds(90)};
  const auto created = store_->entries().CreateEntry(wanted);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->id.size(), 32U);
  EXPECT_EQ(created->created_at, clock_.Now());
  const auto read = store_->entries().GetEntry(created->id);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, *created);
  Entry same = *read;
  same.id = wanted.id;
  same.created_at = wanted.created_at;
  EXPECT_EQ(same, wanted);
}

TEST_F(StoreTest, RefusesAnEntryWithoutSelectors) {
  EXPECT_EQ(Create("/web", {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StoreTest, RefusesASecondEntryWithJustTheSameSelectors) {
  ASSERT_TRUE(Create("/web", {"unix:uid:1"}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Create("/other", {"unix:uid:1"}).status()));
  EXPECT_THAT(*store_->entries().ListEntries(), SizeIs(1));
}

TEST_F(StoreTest, MatchesOnlyEntriesAllOfWhoseSelectorsAreThere) {
  const auto uid = Create("/uid", {"unix:uid:1"});
  const auto both = Create("/both", {"unix:gid:2", "unix:uid:1"});
  const auto path = Create("/path", {"unix:path:/x", "unix:uid:1"});
  ASSERT_TRUE(uid.ok() && both.ok() && path.ok());
  const auto matched = store_->entries().MatchEntries({"unix:uid:1", "unix:gid:2", "unix:uid:1"});
  ASSERT_TRUE(matched.ok());
  std::set<std::string> ids;
  for (const Entry& entry : *matched) {
    ids.insert(entry.id);
  }
  EXPECT_EQ(ids, (std::set<std::string>{uid->id, both->id}));
  EXPECT_THAT(*store_->entries().MatchEntries({"unix:gid:2"}), IsEmpty());
  EXPECT_THAT(*store_->entries().MatchEntries({}), IsEmpty());
}

TEST_F(StoreTest, ListsEntriesOfOneIdentityOldestFirst) {
  const auto first = Create("/web", {"unix:uid:1"});
  ASSERT_TRUE(Create("/db", {"unix:uid:2"}).ok());
  const auto second = Create("/web", {"unix:uid:3"});
  EXPECT_THAT(*store_->entries().ListEntries("spiffe://example.org/web"),
              ElementsAre(*first, *second));
  EXPECT_THAT(*store_->entries().ListEntries(), SizeIs(3));
  EXPECT_THAT(*store_->entries().ListEntries("spiffe://example.org/none"), IsEmpty());
}

TEST_F(StoreTest, ForgetsADeletedEntryAndItsTokens) {
  const auto entry = store_->tokens().CreateToken(Digest(7), Entry{.spiffe_id = Id("/web")},
                                                  absl::InfiniteFuture());
  ASSERT_TRUE(entry.ok()) << entry.status();
  ASSERT_TRUE(store_->entries().DeleteEntry(entry->id).ok());
  EXPECT_TRUE(absl::IsNotFound(store_->entries().DeleteEntry(entry->id)));
  EXPECT_TRUE(absl::IsNotFound(store_->entries().GetEntry(entry->id).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->tokens().UseToken(Digest(7), clock_.Now()).status()));
  EXPECT_THAT(*store_->entries().MatchEntries(entry->selectors), IsEmpty());
}

TEST_F(StoreTest, MakesATokenAndItsEntryTogetherOrNotAtAll) {
  const absl::Time later = clock_.Now() + absl::Minutes(10);
  const auto entry = store_->tokens().CreateToken(Digest(7), Entry{.spiffe_id = Id("/web")}, later);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_THAT(entry->selectors, SizeIs(1));
  EXPECT_TRUE(std::string_view(entry->selectors[0]).starts_with("join-token:"));
  const auto again =
      store_->tokens().CreateToken(Digest(7), Entry{.spiffe_id = Id("/other")}, later);
  EXPECT_TRUE(absl::IsAlreadyExists(again.status()));
  EXPECT_THAT(*store_->entries().ListEntries(), SizeIs(1)) << "the second entry was left behind";
}

TEST_F(StoreTest, ATokenWorksOnceAndNamesItsEntry) {
  const auto entry = store_->tokens().CreateToken(Digest(7), Entry{.spiffe_id = Id("/web")},
                                                  clock_.Now() + absl::Minutes(10));
  ASSERT_TRUE(entry.ok());
  const auto used = store_->tokens().UseToken(Digest(7), clock_.Now());
  ASSERT_TRUE(used.ok()) << used.status();
  EXPECT_EQ(used->entry_id, entry->id);
  EXPECT_EQ("join-token:" + used->token_id, entry->selectors[0]);
  EXPECT_TRUE(absl::IsNotFound(store_->tokens().UseToken(Digest(7), clock_.Now()).status()));
}

TEST_F(StoreTest, OfFiftyParallelUsesOfOneTokenExactlyOneSucceeds) {
  ASSERT_TRUE(
      store_->tokens()
          .CreateToken(Digest(7), Entry{.spiffe_id = Id("/web")}, clock_.Now() + absl::Minutes(10))
          .ok());
  std::atomic<int> succeeded{0};
  std::atomic<int> not_found{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([this, &succeeded, &not_found] {
      const auto used = store_->tokens().UseToken(Digest(7), clock_.Now());
      succeeded += used.ok() ? 1 : 0;
      not_found += absl::IsNotFound(used.status()) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(succeeded, 1);
  EXPECT_EQ(not_found, 49);
}

TEST_F(StoreTest, RefusesAnExpiredTokenAndCleansIt) {
  ASSERT_TRUE(
      store_->tokens()
          .CreateToken(Digest(7), Entry{.spiffe_id = Id("/a")}, clock_.Now() + absl::Minutes(10))
          .ok());
  ASSERT_TRUE(
      store_->tokens()
          .CreateToken(Digest(8), Entry{.spiffe_id = Id("/b")}, clock_.Now() + absl::Minutes(10))
          .ok());
  ASSERT_TRUE(
      store_->tokens()
          .CreateToken(Digest(9), Entry{.spiffe_id = Id("/c")}, clock_.Now() + absl::Minutes(20))
          .ok());
  clock_.Advance(absl::Minutes(10));
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(store_->tokens().UseToken(Digest(7), clock_.Now()).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->tokens().UseToken(Digest(7), clock_.Now()).status()));
  EXPECT_EQ(*store_->tokens().DeleteExpiredTokens(clock_.Now()), 1U);
  EXPECT_TRUE(store_->tokens().UseToken(Digest(9), clock_.Now()).ok());
}

TEST_F(StoreTest, LogsEachSerialOnce) {
  const IssuedCertificate first = Certificate("AB", clock_.Now() + absl::Hours(1));
  ASSERT_TRUE(store_->certificates().Append(first).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(store_->certificates().Append(first)));
  const auto found = store_->certificates().FindBySerial("AB");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, first);
  EXPECT_TRUE(absl::IsNotFound(store_->certificates().FindBySerial("CD").status()));
  EXPECT_EQ(*store_->certificates().CountIssued(), 1U);
}

TEST_F(StoreTest, PrunesExpiredCertificatesAndKeepsCounting) {
  ASSERT_TRUE(store_->certificates().Append(Certificate("01", clock_.Now() + absl::Hours(1))).ok());
  ASSERT_TRUE(store_->certificates().Append(Certificate("02", clock_.Now() + absl::Hours(3))).ok());
  EXPECT_EQ(*store_->certificates().PruneExpired(clock_.Now() + absl::Hours(2)), 1U);
  EXPECT_TRUE(absl::IsNotFound(store_->certificates().FindBySerial("01").status()));
  EXPECT_TRUE(store_->certificates().FindBySerial("02").ok());
  EXPECT_EQ(*store_->certificates().CountIssued(), 2U);
}

TEST_F(StoreTest, HoldsOneCurrentCaOfEachRole) {
  const CaRecord root{.id = "r",
                      .role = CaRole::kRoot,
                      .state = CaState::kCurrent,
                      .issuer_id = "r",
                      .certificate_der = std::string("\0\1", 2),
                      .created_at = clock_.Now()};
  CaRecord intermediate = root;
  intermediate.id = "i";
  intermediate.role = CaRole::kIntermediate;
  const Version before = *store_->cas().BundleVersion();
  EXPECT_GT(before.sequence, 0U);
  ASSERT_TRUE(store_->cas().AddCas({intermediate, root}).ok());
  EXPECT_THAT(*store_->cas().ListCas(), ElementsAre(root, intermediate));
  EXPECT_GT(*store_->cas().BundleVersion(), before);
  const Version added = *store_->cas().BundleVersion();
  const Version raised = *store_->cas().RaiseBundleVersion();
  EXPECT_GT(raised, added);
  EXPECT_EQ(*store_->cas().BundleVersion(), raised);

  CaRecord rival = root;
  rival.id = "rival";
  CaRecord next = root;
  next.id = "next";
  next.state = CaState::kNext;
  EXPECT_TRUE(absl::IsAlreadyExists(store_->cas().AddCas({next, rival})));
  EXPECT_THAT(*store_->cas().ListCas(), SizeIs(2)) << "half of a refused change was kept";
  CaRecord retired = root;
  retired.id = "retired";
  retired.state = CaState::kRetired;
  CaRecord retired_too = retired;
  retired_too.id = "retired too";
  EXPECT_TRUE(store_->cas().AddCas({next, retired, retired_too}).ok());
}

TEST_F(StoreTest, PublishesTheSameBundlesUnderTheSameVersionAndOthersUnderANewOne) {
  const Version first = *store_->cas().VersionOfBundles(Digest(1));
  EXPECT_EQ(first.epoch, store_->epoch());
  EXPECT_EQ(*store_->cas().VersionOfBundles(Digest(1)), first);
  const Version second = *store_->cas().VersionOfBundles(Digest(2));
  EXPECT_GT(second, first);
  EXPECT_GT(*store_->cas().VersionOfBundles(Digest(1)), second) << "back again is new again";
  // A root that was added and is not published yet does not lend its version to the old content.
  const Version published = *store_->cas().VersionOfBundles(Digest(3));
  ASSERT_TRUE(store_->cas()
                  .AddCas({{.id = "r",
                            .role = CaRole::kRoot,
                            .state = CaState::kCurrent,
                            .issuer_id = "r",
                            .certificate_der = "x",
                            .created_at = clock_.Now()}})
                  .ok());
  EXPECT_EQ(*store_->cas().VersionOfBundles(Digest(3)), published);
  EXPECT_GT(*store_->cas().BundleVersion(), published);
  const Version raised = *store_->cas().BundleVersion();
  EXPECT_GT(*store_->cas().VersionOfBundles(Digest(4)), raised);
}

TEST_F(StoreTest, KeepsOneBundleOfEachForeignTrustDomain) {
  ForeignBundle c{.trust_domain = "c.test",
                  .document = R"({"keys":[]})",
                  .fetched_at = clock_.Now(),
                  .bootstrap_sha256 = "ab"};
  const ForeignBundle b{.trust_domain = "b.test", .document = "{}"};
  ASSERT_TRUE(store_->foreign_bundles().PutForeignBundle(c).ok());
  ASSERT_TRUE(store_->foreign_bundles().PutForeignBundle(b).ok());
  EXPECT_THAT(*store_->foreign_bundles().ListForeignBundles(), ElementsAre(b, c));
  c.document = "{ }";
  c.fetched_at += absl::Minutes(5);
  ASSERT_TRUE(store_->foreign_bundles().PutForeignBundle(c).ok());
  EXPECT_THAT(*store_->foreign_bundles().ListForeignBundles(), ElementsAre(b, c));
  ASSERT_TRUE(store_->foreign_bundles().DeleteForeignBundle("b.test").ok());
  ASSERT_TRUE(store_->foreign_bundles().DeleteForeignBundle("b.test").ok());
  EXPECT_THAT(*store_->foreign_bundles().ListForeignBundles(), ElementsAre(c));
}

TEST_F(StoreTest, ReplacesThePolicyAsAWholeUnderANewVersion) {
  const PolicyDocuments empty = *store_->policy().GetPolicy();
  EXPECT_THAT(empty.documents, IsEmpty());
  EXPECT_EQ(empty.version.epoch, store_->epoch());
  EXPECT_GT(empty.version.sequence, 0U);
  const PolicyDocument b{.name = "b", .yaml = "kind: Policy"};
  const PolicyDocument a{.name = "a", .yaml = ""};
  const auto put = store_->policy().PutPolicy({b, a});
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_GT(put->version, empty.version);
  EXPECT_THAT(store_->policy().GetPolicy()->documents, ElementsAre(b, a));
  EXPECT_EQ(store_->policy().GetPolicy()->version, put->version);
  EXPECT_EQ(store_->policy().PutPolicy({a, a}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->policy().PutPolicy({{.name = "", .yaml = ""}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(store_->policy().GetPolicy()->documents, SizeIs(2));
}

TEST_F(StoreTest, ManyThreadsWriteAtOnceAndOneBadWriteSpoilsNoOther) {
  std::atomic<int> stored{0};
  std::atomic<int> clashed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this, t, &stored, &clashed] {
      for (int i = 0; i < 50; ++i) {
        const std::string serial = std::to_string(t) + "-" + std::to_string(i);
        const absl::Time end = clock_.Now() + absl::Hours(1);
        stored += store_->certificates().Append(Certificate(serial, end)).ok() ? 1 : 0;
        clashed +=
            absl::IsAlreadyExists(store_->certificates().Append(Certificate(serial, end))) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(stored, 400);
  EXPECT_EQ(clashed, 400);
  EXPECT_EQ(*store_->certificates().CountIssued(), 400U);
  EXPECT_EQ(store_->error_count(), 0U) << "a refusal is no error of the store";
}

TEST_F(StoreTest, RemembersWhichProxiesServeWhichEntry) {
  const auto entry = Create("/web", {"unix:uid:1"});
  const auto other = Create("/db", {"unix:uid:2"});
  const Speaker a{entry->id, *base::IpAddress::Parse("198.18.0.1"), {0}};
  const Speaker b{entry->id, *base::IpAddress::Parse("fd00:5b::1"), {80, 443}};
  const Speaker c{other->id, *base::IpAddress::Parse("198.18.0.1"), {}};
  const Speaker nobody{"none", *base::IpAddress::Parse("198.18.0.1"), {1}};
  ASSERT_TRUE(store_->speakers().UpdateSpeakers({a, b, c, nobody}, {}).ok());
  EXPECT_THAT(*store_->speakers().ListSpeakers(), UnorderedElementsAre(a, b, c));
  Speaker changed = a;
  changed.ports = {81};
  ASSERT_TRUE(store_->speakers().UpdateSpeakers({changed}, {b}).ok());
  EXPECT_THAT(*store_->speakers().ListSpeakers(), UnorderedElementsAre(changed, c));
  ASSERT_TRUE(store_->entries().DeleteEntry(entry->id).ok());
  EXPECT_THAT(*store_->speakers().ListSpeakers(), ElementsAre(c));
}

TEST_F(StoreTest, ProbeSaysThatItCanBeWritten) {
  EXPECT_TRUE(store_->Probe().ok());
}

}  // namespace
}  // namespace postern::store
