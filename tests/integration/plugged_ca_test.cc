// SPDX-License-Identifier: Apache-2.0
// A CA from a directory under a proxy that is connected: chains, changes, and nothing lost by them.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/x509/chain_verifier.h"
#include "control/service/issuer_process.h"
#include "proxy/identity/identity_manager.h"
#include "tests/integration/issuer_admin.h"
#include "tests/testing/ca_mount.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern {
namespace {

using identity::IdentityManager;
using testing::CaMount;
using testing::CaSpec;
using testing::RunUntil;
using testing::TestCa;

class PluggedCaTest : public ::testing::Test {
 protected:
  PluggedCaTest() : loop_(net::Loop::Create().value()) { mount_.Swap(first_); }
  ~PluggedCaTest() override {
    manager_.reset();
    issuer_.reset();
  }

  void StartIssuer() {
    service::IssuerConfig config{*x509::TrustDomain::Parse("example.org"), dir_.Path("issuer")};
    config.listen = {"127.0.0.1", 0};
    config.admin = {"127.0.0.1", 0};
    config.socket = dir_.Path("issuer.sock");
    config.ca_dir = mount_.path();
    config.svid_ttl = absl::Seconds(10);
    config.allow_short_ttl = true;
    issuer_ = service::IssuerProcess::Start(config, base::Clock::System()).value();
    proxy_.issuer = "127.0.0.1:" + std::to_string(issuer_->grpc_port());
  }
  void StartProxy() {
    testing::IssuerAdmin admin(dir_.Path("issuer.sock"));
    dir_.Write("token", admin.CreateToken("spiffe://example.org/web"));
    proxy_.trust_domain = "example.org";
    proxy_.state_dir = dir_.Path("proxy");
    proxy_.join_token_file = dir_.Path("token");
    proxy_.issuer_pin = std::string(base::AsText(x509::Sha256OfCertificate(root_.root())));
    manager_ = IdentityManager::Create(
                   proxy_, *loop_, base::Clock::System(),
                   {[this](auto snapshot) { latest_ = std::move(snapshot); }, [](auto) {}})
                   .value();
    manager_->Start();
    ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  }
  // The proxy's loop runs, and the issuer ticks beside it, faster than its main would.
  bool Until(const std::function<bool()>& condition) {
    return RunUntil(*loop_, [&] {
      issuer_->Tick();
      return condition();
    });
  }
  bool IsSignedBy(const TestCa& ca) const {
    return latest_ != nullptr && X509_cmp(latest_->svid->chain()[1].get(), ca.certificate()) == 0;
  }
  bool Trusts(const TestCa& ca) const {
    for (const auto& root : latest_->bundles->Find("example.org")->roots()) {
      if (X509_cmp(root.get(), ca.root()) == 0) {
        return true;
      }
    }
    return false;
  }

  const testing::TempDir dir_;
  CaMount mount_{dir_.Path("ca")};
  const TestCa root_{"example.org", CaSpec("root")};
  const TestCa first_ = root_.Intermediate(CaSpec("team")).Intermediate(CaSpec("first"));
  const TestCa second_ = root_.Intermediate(CaSpec("team two")).Intermediate(CaSpec("second"));
  const TestCa other_root_{"example.org", CaSpec("other root")};
  const TestCa other_ = other_root_.Intermediate(CaSpec("other"));
  std::unique_ptr<net::Loop> loop_;
  std::unique_ptr<service::IssuerProcess> issuer_;
  config::ProxyConfig proxy_;
  std::shared_ptr<const identity::IdentitySnapshot> latest_;
  std::unique_ptr<IdentityManager> manager_;
};

TEST_F(PluggedCaTest, AProxyWithThePinOfTheRootTakesADeepChain) {
  StartIssuer();
  StartProxy();
  ASSERT_EQ(latest_->svid->chain().size(), 3U);
  EXPECT_TRUE(IsSignedBy(first_));
  EXPECT_TRUE(Trusts(root_));
  // A peer that has nothing but the root.
  EXPECT_TRUE(x509::VerifyPeerChain(latest_->svid->leaf(),
                                    x509::ShareX509Stack(latest_->svid->chain()).get(),
                                    root_.BundleSet(), x509::PeerRole::kClient, absl::Now())
                  .peer.has_value());
}

TEST_F(PluggedCaTest, RenewalsFollowEachSwapAndNoneFails) {
  StartIssuer();
  StartProxy();
  mount_.Swap(second_);
  EXPECT_TRUE(Until([&] { return IsSignedBy(second_); }));
  mount_.Swap(other_);
  // The new root comes by the stream, before anything that is signed below it.
  EXPECT_TRUE(Until([&] { return Trusts(other_root_); }));
  EXPECT_TRUE(IsSignedBy(second_));
  EXPECT_TRUE(Until([&] { return IsSignedBy(other_); }));
  EXPECT_TRUE(Trusts(root_));
  EXPECT_EQ(manager_->status().renewals_failed, 0U);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
}

TEST_F(PluggedCaTest, ACaOfTheIssuersOwnGivesWay) {
  {
    service::IssuerConfig config{*x509::TrustDomain::Parse("example.org"), dir_.Path("issuer")};
    config.listen = {"127.0.0.1", 0};
    config.admin = {"127.0.0.1", 0};
    config.socket = dir_.Path("issuer.sock");
    ASSERT_TRUE(service::IssuerProcess::Start(config, base::Clock::System()).ok());
  }
  StartIssuer();
  // It begins with its own CA, whose root proxies know; here a proxy that knows both.
  testing::IssuerAdmin admin(dir_.Path("issuer.sock"));
  ASSERT_EQ(admin.Bundles().bundles(0).root_der_size(), 1);
  const x509::X509Ptr own = admin.Root();
  EXPECT_NE(X509_cmp(own.get(), root_.root()), 0);
  Until([&] {
    return issuer_->Metrics().find("postern_issuer_ca_changes_total 1") != std::string::npos;
  });
  StartProxy();
  EXPECT_TRUE(IsSignedBy(first_));
  EXPECT_EQ(latest_->bundles->Find("example.org")->roots().size(), 2U);
}

}  // namespace
}  // namespace postern
