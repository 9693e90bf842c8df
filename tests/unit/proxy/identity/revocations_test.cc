// SPDX-License-Identifier: Apache-2.0
// The issuer's list of revocations at a proxy: verified, kept, never rolled back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "common/base/file.h"
#include "postern/v1/mesh.pb.h"
#include "postern/v1/state.pb.h"
#include "tests/testing/test_crl.h"
#include "tests/unit/proxy/identity/issued_proxy.h"

namespace postern::identity {
namespace {

using ::testing::HasSubstr;
using testing::RunUntil;
using ::testing::SizeIs;
using x509::RevokedBy;

constexpr char kOther[] = "spiffe://example.org/other";

v1::Revocation Id(const std::string& spiffe_id) {
  v1::Revocation revocation;
  revocation.set_spiffe_id(spiffe_id);
  revocation.set_sequence(2);
  revocation.set_reason("stolen");
  revocation.set_revoked_at(absl::ToUnixSeconds(absl::Now()));
  return revocation;
}

class ProxyRevocationsTest : public IssuedProxyTest {
 protected:
  void SetUp() override { issuer_.Start(); }

  // Whether the newest set that was published refuses this identity.
  bool Refuses(const std::string& spiffe_id) const {
    return !revocations_.empty() &&
           revocations_.back()->Find(RevokedBy::kSpiffeId, spiffe_id) != nullptr;
  }
  // The answer to the newest list that was sent: empty for an ack.
  bool AwaitAnswer(uint64_t sequence, std::string* error) {
    return RunUntil(*loop_, [&] {
      for (const auto& ack : issuer_.acks()) {
        if (ack.kind == v1::KIND_REVOCATIONS && ack.sequence == sequence) {
          *error = ack.error;
          return true;
        }
      }
      return false;
    });
  }
  bool StartAndConnect() {
    Start();
    return Gets(1) && RunUntil(*loop_, [&] { return issuer_.open_streams() == 1; });
  }
};

TEST_F(ProxyRevocationsTest, AListIsPublishedAndAcknowledged) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  std::string error = "none came";
  ASSERT_TRUE(AwaitAnswer(issuer_.sequence(), &error));
  EXPECT_EQ(error, "");
  EXPECT_TRUE(Refuses(kOther));
  EXPECT_FALSE(Refuses(kWeb));
  EXPECT_EQ(manager_->gauges().revocation_sequence, issuer_.sequence());
  EXPECT_EQ(manager_->gauges().revocations, 1U);
  issuer_.SetRevocations({});
  ASSERT_TRUE(AwaitAnswer(issuer_.sequence(), &error));
  EXPECT_FALSE(Refuses(kOther)) << "lifted";
}

TEST_F(ProxyRevocationsTest, AfterARestartItCountsBeforeThereIsAnIdentityThoughTheIssuerIsAway) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses(kOther); }));
  Stop();
  issuer_.Stop();
  Start();
  ASSERT_TRUE(Gets(1)) << "from the state directory";
  ASSERT_FALSE(revocations_.empty());
  EXPECT_TRUE(Refuses(kOther));
  EXPECT_EQ(identities_before_revocations_.front(), 0U) << "no window of acceptance";
}

TEST_F(ProxyRevocationsTest, AProxyThatWasAwayCatchesUp) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses(kOther); }));
  const uint64_t held = issuer_.sequence();
  Stop();
  issuer_.SetRevocations({Id(kOther), Id("spiffe://example.org/third")});
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses("spiffe://example.org/third"); }));
  const auto hello = issuer_.hellos().back();
  EXPECT_TRUE(std::any_of(hello.held().begin(), hello.held().end(), [held](const auto& one) {
    return one.kind() == v1::KIND_REVOCATIONS && one.version().sequence() == held;
  }));
}

TEST_F(ProxyRevocationsTest, ARolledBackListIsRefusedAndTheIssuerHearsIt) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses(kOther); }));
  const size_t published = revocations_.size();
  for (const auto& [epoch, sequence] : {std::pair<uint64_t, uint64_t>{1, 1}, {0, 1'000'000}}) {
    issuer_.SendRevocations(epoch, sequence);  // an empty list of before
    std::string error;
    ASSERT_TRUE(AwaitAnswer(sequence, &error));
    EXPECT_THAT(error, HasSubstr("roll-back"));
    EXPECT_TRUE(Refuses(kOther));
  }
  EXPECT_THAT(revocations_, SizeIs(published));
  Stop();
  Start();
  ASSERT_TRUE(Gets(1));
  EXPECT_TRUE(Refuses(kOther)) << "nor was it kept";
}

TEST_F(ProxyRevocationsTest, ARestoredStoreOfALaterEpochIsTaken) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses(kOther); }));
  issuer_.SendRevocations(2, 1);
  std::string error = "none came";
  ASSERT_TRUE(AwaitAnswer(1, &error));
  EXPECT_EQ(error, "");
  EXPECT_FALSE(Refuses(kOther));
}

TEST_F(ProxyRevocationsTest, AListThatNoCaOfTheTrustDomainSignedIsRefused) {
  ASSERT_TRUE(StartAndConnect());
  const testing::TestCa stranger;
  const testing::TestCa foreign = stranger.Intermediate();
  issuer_.SetRevocations({Id(kOther)}, &foreign);
  std::string error;
  ASSERT_TRUE(AwaitAnswer(issuer_.sequence(), &error));
  EXPECT_THAT(error, HasSubstr("leads to no root"));
  EXPECT_FALSE(Refuses(kOther));
}

TEST_F(ProxyRevocationsTest, AListThatIsNotUnderstoodAsAWholeIsRefused) {
  ASSERT_TRUE(StartAndConnect());
  v1::Revocation nothing;
  nothing.set_sequence(3);
  issuer_.SetRevocations({Id(kOther), nothing});
  std::string error;
  ASSERT_TRUE(AwaitAnswer(issuer_.sequence(), &error));
  EXPECT_THAT(error, HasSubstr("does not know"));
  EXPECT_FALSE(Refuses(kOther));
}

// What the issuer wants is not what is in force: --max-stale counts from the last list that was.
TEST_F(ProxyRevocationsTest, AListThatWasRefusedIsNotConfirmedUntilOneIsApplied) {
  constexpr auto kRevocations = static_cast<size_t>(TrustKind::kRevocations);
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses(kOther); }));
  issuer_.SendRevocations(1, 1);
  std::string error;
  ASSERT_TRUE(AwaitAnswer(1, &error));
  EXPECT_NE(error, "");
  const auto before = manager_->status().confirmed[kRevocations];
  const testing::TestCa other("other.org");
  issuer_.SetBundles({&other});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().confirmed[0] > before; }));
  EXPECT_EQ(manager_->status().confirmed[kRevocations], before);
  EXPECT_EQ(manager_->times().confirmed(), before) << "the oldest counts for --max-stale";
  issuer_.SetRevocations({});
  EXPECT_TRUE(
      RunUntil(*loop_, [&] { return manager_->status().confirmed[kRevocations] > before; }));
}

TEST_F(ProxyRevocationsTest, ADamagedStateServesNothingBeforeTheIssuerWasHeard) {
  ASSERT_TRUE(StartAndConnect());
  issuer_.SetRevocations({Id(kOther)});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Refuses(kOther); }));
  Stop();
  issuer_.Stop();
  ASSERT_TRUE(
      base::WriteFileAtomically(config_.state_dir + "/snapshot.pb", "\xff\xff\xff", 0600).ok());
  Start();
  EXPECT_FALSE(manager_->HasUsableIdentity()) << "what was revoked is not known";
  issuer_.Start();
  EXPECT_TRUE(Gets(1)) << "it comes back by itself";
}

TEST_F(ProxyRevocationsTest, CrlFilesAreVerifiedByTheRootsOfTheBundleWhenTheyCome) {
  const testing::Minted web = issuer_.root().Mint(kOther);
  const auto crl = testing::MakeCrl(issuer_.root(), {.serials = {x509::SerialHex(web.leaf())}});
  config_.crl_paths = {dir_.Write("ca.crl", testing::CrlPem(crl.get()))};
  Start();
  ASSERT_TRUE(Gets(1));
  ASSERT_FALSE(revocations_.empty());
  EXPECT_THAT(revocations_.back()->crls(), SizeIs(1));
  EXPECT_EQ(manager_->gauges().crl_entries, 1U);
  EXPECT_EQ(manager_->gauges().crls_stale, 0U);
}

TEST_F(ProxyRevocationsTest, ACrlFileThatDoesNotParseIsAFaultOfConfiguration) {
  config_.crl_paths = {dir_.Write("ca.crl", "no CRL")};
  EXPECT_THAT(std::string(Make().status().message()), HasSubstr("--crl"));
  config_.crl_paths = {dir_.Path("missing.crl")};
  EXPECT_FALSE(Make().ok());
}

}  // namespace
}  // namespace postern::identity
