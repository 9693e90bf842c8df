// SPDX-License-Identifier: Apache-2.0
// A connection that waits for an answer does not wait out the pause between two attempts.
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

#include "common/x509/trust_bundle.h"
#include "proxy/identity/mesh_client.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_issuer.h"
#include "tests/testing/run_loop.h"

namespace postern::identity {
namespace {

using testing::RunUntil;

class MeshHurryTest : public ::testing::Test, private MeshClient::Delegate {
 protected:
  MeshHurryTest()
      : loop_(net::Loop::Create().value()),
        clock_(absl::Now()),
        client_(*loop_, clock_, [] { return 0.999; }, *this, {}) {
    issuer_.ReservePort();
    const auto domain = x509::TrustDomain::Parse("example.org").value();
    options_.target = issuer_.target();
    options_.trust.emplace(rpc::IssuerTrust{
        domain,
        std::make_shared<const x509::TrustBundleSet>(
            x509::TrustBundleSet::FromFileContent(issuer_.root().RootPem(), domain).value()),
        std::nullopt});
    options_.client = std::make_shared<const x509::Svid>(
        issuer_.root().Intermediate().Issue("spiffe://example.org/web"));
    options_.clock = &clock_;
  }

  bool Fails(int times) {
    return RunUntil(*loop_, [&] { return events_ >= times && !client_.connected(); });
  }

  // MeshClient::Delegate
  absl::Status OnBundles(const v1::BundleSet& /*bundles*/) override { return absl::OkStatus(); }
  absl::Status OnPolicy(const v1::PolicyDocuments& /*documents*/) override {
    return absl::OkStatus();
  }
  absl::Status OnRevocations(const v1::SignedRevocations& /*revocations*/) override {
    return absl::OkStatus();
  }
  void OnAnswer(const v1::MeshResponse_EndpointUpdate_Answer& /*answer*/) override {}
  void OnAnswersEnd() override {}
  void OnHeard(absl::Duration /*skew*/) override {}
  void OnApplied(TrustKind /*kind*/, bool /*ok*/) override {}
  void OnConnection() override { ++events_; }
  std::optional<Version> HeldBundles() const override { return std::nullopt; }
  std::optional<Version> HeldPolicy() const override { return std::nullopt; }
  std::optional<Version> HeldRevocations() const override { return std::nullopt; }
  std::vector<AddressKey> Subscriptions() const override { return {}; }

  fakes::FakeIssuer issuer_;
  std::unique_ptr<net::Loop> loop_;
  fakes::FakeClock clock_;  // stands still: no pause ends by itself
  rpc::IssuerChannelOptions options_;
  int events_ = 0;  // a stream began or ended
  MeshClient client_;
};

TEST_F(MeshHurryTest, TriesAtOnceASecondAfterTheLastAttempt) {
  client_.Connect(options_);
  ASSERT_TRUE(Fails(1));
  clock_.Advance(absl::Seconds(1));
  client_.Hurry();
  ASSERT_TRUE(Fails(2));
  issuer_.Start();
  clock_.Advance(absl::Seconds(1));  // of a pause of two
  client_.Hurry();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return client_.connected(); }));
}

TEST_F(MeshHurryTest, NeverTriesMoreThanOnceASecond) {
  client_.Connect(options_);
  ASSERT_TRUE(Fails(1));
  clock_.Advance(absl::Milliseconds(900));
  for (int i = 0; i < 20; ++i) {
    client_.Hurry();
    testing::RunFor(*loop_, std::chrono::milliseconds(10));
  }
  EXPECT_EQ(events_, 1);
}

TEST_F(MeshHurryTest, GoesOnTryingEverySecondWhileTheConnectionMayStillWait) {
  client_.Connect(options_);
  ASSERT_TRUE(Fails(1));
  clock_.Advance(absl::Seconds(1));
  client_.Hurry();
  ASSERT_TRUE(Fails(2));  // the next would be after two seconds
  clock_.Advance(absl::Seconds(1));
  ASSERT_TRUE(Fails(3)) << "without being asked again";
}

TEST_F(MeshHurryTest, LeavesAStreamThatStandsAlone) {
  issuer_.Start();
  client_.Connect(options_);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return client_.connected(); }));
  clock_.Advance(absl::Seconds(10));
  client_.Hurry();
  testing::RunFor(*loop_, std::chrono::milliseconds(50));
  EXPECT_TRUE(client_.connected());
  EXPECT_EQ(issuer_.hellos().size(), 1U);
}

}  // namespace
}  // namespace postern::identity
