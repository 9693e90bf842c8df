// SPDX-License-Identifier: Apache-2.0
// The steps of a CA's life in the store: next, current, retired, withdrawn.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/store/store.h"
#include "tests/fakes/fake_clock.h"

namespace postern::store {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

class StoreRotationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
    ASSERT_TRUE(cas()
                    .AddCas({Ca("r1", CaRole::kRoot, CaState::kCurrent),
                             Ca("i1", CaRole::kIntermediate, CaState::kCurrent)})
                    .ok());
  }
  CaStore& cas() { return store_->cas(); }
  CaRecord Ca(const std::string& id, CaRole role, CaState state) {
    return CaRecord{.id = id,
                    .role = role,
                    .state = state,
                    .issuer_id = "r1",
                    .certificate_der = "der of " + id,
                    .created_at = clock_.Now()};
  }
  void AddNextRoot() {
    ASSERT_TRUE(cas()
                    .AddCas({Ca("r2", CaRole::kRoot, CaState::kNext),
                             Ca("i2", CaRole::kIntermediate, CaState::kNext)})
                    .ok());
  }
  std::vector<std::string> In(CaState state) {
    std::vector<std::string> ids;
    const auto records = cas().ListCas();
    for (const CaRecord& record : *records) {
      if (record.state == state) {
        ids.push_back(record.id);
      }
    }
    return ids;
  }
  uint64_t Sequence() { return cas().BundleVersion()->sequence; }
  IssuedCertificate Certificate(const std::string& serial, const std::string& ca_id) {
    return IssuedCertificate{.serial = serial,
                             .spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/a"),
                             .entry_id = "e",
                             .ca_id = ca_id,
                             .not_after = clock_.Now() + absl::Hours(1),
                             .issued_at = clock_.Now()};
  }

  fakes::FakeClock clock_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreRotationTest, MovesARootAndItsIntermediateFromStateToState) {
  AddNextRoot();
  const uint64_t prepared = Sequence();
  ASSERT_TRUE(cas().ActivateNextCas().ok());
  EXPECT_THAT(In(CaState::kCurrent), ElementsAre("r2", "i2"));
  EXPECT_THAT(In(CaState::kRetired), ElementsAre("r1", "i1"));
  EXPECT_EQ(Sequence(), prepared) << "the set of roots is the same";
  clock_.Advance(absl::Hours(2));
  ASSERT_TRUE(cas().WithdrawRetiredCas(clock_.Now(), /*in_order=*/true).ok());
  EXPECT_THAT(*cas().ListCas(), SizeIs(2));
  EXPECT_EQ(Sequence(), prepared + 1);
  const auto withdrawn = cas().ListWithdrawnCas();
  ASSERT_TRUE(withdrawn.ok()) << withdrawn.status();
  EXPECT_THAT(*withdrawn, UnorderedElementsAre(WithdrawnCa{.id = "r1",
                                                           .role = CaRole::kRoot,
                                                           .certificate_der = "der of r1",
                                                           .in_order = true,
                                                           .withdrawn_at = clock_.Now()},
                                               WithdrawnCa{.id = "i1",
                                                           .role = CaRole::kIntermediate,
                                                           .certificate_der = "der of i1",
                                                           .in_order = true,
                                                           .withdrawn_at = clock_.Now()}));
}

TEST_F(StoreRotationTest, LeavesTheRootAloneWhenOnlyAnIntermediateIsNext) {
  const uint64_t before = Sequence();
  ASSERT_TRUE(cas().AddCas({Ca("i2", CaRole::kIntermediate, CaState::kNext)}).ok());
  ASSERT_TRUE(cas().ActivateNextCas().ok());
  EXPECT_THAT(In(CaState::kCurrent), ElementsAre("r1", "i2"));
  EXPECT_THAT(In(CaState::kRetired), ElementsAre("i1"));
  ASSERT_TRUE(cas().WithdrawRetiredCas(clock_.Now(), false).ok());
  EXPECT_EQ(Sequence(), before);
  EXPECT_FALSE(cas().ListWithdrawnCas()->front().in_order);
}

TEST_F(StoreRotationTest, ActivatesNothingWithoutANextOneOrBesideARetiredOne) {
  EXPECT_TRUE(absl::IsFailedPrecondition(cas().ActivateNextCas()));
  AddNextRoot();
  ASSERT_TRUE(cas().ActivateNextCas().ok());
  ASSERT_TRUE(cas().AddCas({Ca("i3", CaRole::kIntermediate, CaState::kNext)}).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(cas().ActivateNextCas()));
  EXPECT_THAT(In(CaState::kCurrent), ElementsAre("r2", "i2"));
}

TEST_F(StoreRotationTest, DropsTheNextOnesAndMayDoSoAgain) {
  AddNextRoot();
  const uint64_t prepared = Sequence();
  ASSERT_TRUE(cas().DropNextCas().ok());
  EXPECT_THAT(In(CaState::kNext), IsEmpty());
  EXPECT_EQ(Sequence(), prepared + 1);
  ASSERT_TRUE(cas().DropNextCas().ok());
  ASSERT_TRUE(cas().WithdrawRetiredCas(clock_.Now(), true).ok());
  EXPECT_EQ(Sequence(), prepared + 1) << "nothing was there to take away";
  EXPECT_THAT(*cas().ListWithdrawnCas(), IsEmpty());
}

// What was signed just before an activation and is logged after it must not go out.
TEST_F(StoreRotationTest, RefusesACertificateOfARetiredOrWithdrawnCa) {
  CertificateLog& log = store_->certificates();
  ASSERT_TRUE(log.Append(Certificate("01", "i1")).ok());
  AddNextRoot();
  ASSERT_TRUE(log.Append(Certificate("02", "i1")).ok());
  ASSERT_TRUE(cas().ActivateNextCas().ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(log.Append(Certificate("03", "i1"))));
  EXPECT_TRUE(log.Append(Certificate("04", "i2")).ok());
  ASSERT_TRUE(cas().WithdrawRetiredCas(clock_.Now(), true).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(log.Append(Certificate("05", "i1"))));
  EXPECT_TRUE(log.Append(Certificate("06", "a CA that is not kept here")).ok());
  EXPECT_EQ(*log.CountIssued(), 4U) << "a refused one does not count";
}

TEST_F(StoreRotationTest, ListsWhatHasNotExpiredWithoutTheIssuersOwn) {
  CertificateLog& log = store_->certificates();
  IssuedCertificate own = Certificate("01", "i1");
  own.entry_id.clear();
  IssuedCertificate expired = Certificate("02", "i1");
  expired.not_after = clock_.Now();
  IssuedCertificate renewed = Certificate("03", "i1");
  renewed.replaces = "02";
  for (const IssuedCertificate& one : {own, expired, renewed}) {
    ASSERT_TRUE(log.Append(one).ok());
  }
  EXPECT_THAT(*log.ListLive(clock_.Now()),
              ElementsAre(LiveCertificate{.serial = "03",
                                          .ca_id = "i1",
                                          .replaces = "02",
                                          .issued_at = clock_.Now(),
                                          .not_after = clock_.Now() + absl::Hours(1)}));
  EXPECT_EQ(log.FindBySerial("03")->replaces, "02");
}

}  // namespace
}  // namespace postern::store
