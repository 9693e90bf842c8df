// SPDX-License-Identifier: Apache-2.0
// A proxy's identity from the real issuer: token, renewal, policy, endpoints, restart of each side.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/x509/certificate.h"
#include "control/service/issuer_process.h"
#include "proxy/identity/identity_manager.h"
#include "tests/integration/issuer_admin.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"

namespace postern {
namespace {

using identity::EndpointDirectory;
using identity::IdentityManager;
using testing::IssuerAdmin;
using testing::RunUntil;

constexpr char kWeb[] = "spiffe://example.org/web";

class IssuedIdentityTest : public ::testing::Test {
 protected:
  explicit IssuedIdentityTest(absl::Duration svid_ttl = absl::Hours(1))
      : svid_ttl_(svid_ttl), loop_(net::Loop::Create().value()) {
    StartIssuer(0);
    proxy_.trust_domain = "example.org";
    proxy_.state_dir = dir_.Path("proxy");
    proxy_.join_token_file = dir_.Path("token");
  }
  ~IssuedIdentityTest() override {
    manager_.reset();
    issuer_.reset();
  }

  void StartIssuer(uint16_t port) {
    service::IssuerConfig config{*x509::TrustDomain::Parse("example.org"), dir_.Path("issuer")};
    config.listen = {"127.0.0.1", port};
    config.admin = {"127.0.0.1", 0};
    config.socket = dir_.Path("issuer.sock");
    config.svid_ttl = svid_ttl_;
    config.allow_short_ttl = svid_ttl_ < absl::Minutes(10);
    issuer_ = service::IssuerProcess::Start(config, base::Clock::System()).value();
    proxy_.issuer = "127.0.0.1:" + std::to_string(issuer_->grpc_port());
  }
  IssuerAdmin Admin() const { return IssuerAdmin(dir_.Path("issuer.sock")); }

  // An entry for `id` with a token, which is written to the proxy's token file.
  void MakeToken(const std::string& id, const std::string& address = "") {
    dir_.Write("token", Admin().CreateToken(id, address));
  }
  void PinTheIssuer() { proxy_.issuer_pin = Admin().RootPin(); }
  void PutPolicy(const std::string& yaml) { Admin().PutPolicy(yaml); }

  void StartProxy() {
    snapshots_.clear();
    policies_.clear();
    manager_ = IdentityManager::Create(
                   proxy_, *loop_, base::Clock::System(),
                   {[this](auto snapshot) { snapshots_.push_back(std::move(snapshot)); },
                    [this](auto policy) { policies_.push_back(std::move(policy)); }})
                   .value();
    manager_->Start();
  }
  bool IsConnected() {
    return RunUntil(*loop_, [&] { return manager_->status().issuer_connected; });
  }
  bool Lets(const std::string& id) const {
    policy::ConnectionFacts facts;
    facts.source = x509::SpiffeId::Parse(id).value();
    return !policies_.empty() && policies_.back()->Authorize(facts).allowed;
  }
  std::string Look(const std::string& destination) {
    std::optional<EndpointDirectory::Answer> answer;
    const auto query = manager_->directory().Lookup(
        *loop_, net::SocketAddress::Parse(destination).value(),
        [&answer](EndpointDirectory::Answer got) { answer = std::move(got); });
    RunUntil(
        *loop_, [&] { return answer.has_value(); }, std::chrono::seconds(5));
    if (!answer.has_value() || !answer->ok()) {
      return answer.has_value() ? answer->status().ToString() : "unanswered";
    }
    return (*answer)->has_value() ? (**answer)->expected.front().ToString() : "plaintext";
  }

  const absl::Duration svid_ttl_;
  const testing::TempDir dir_;
  std::unique_ptr<net::Loop> loop_;
  std::unique_ptr<service::IssuerProcess> issuer_;
  config::ProxyConfig proxy_;
  std::vector<std::shared_ptr<const identity::IdentitySnapshot>> snapshots_;
  std::vector<std::shared_ptr<const policy::PolicySet>> policies_;
  std::unique_ptr<IdentityManager> manager_;
};

TEST_F(IssuedIdentityTest, AProxyWithATokenAndAPinBecomesAWorkload) {
  MakeToken(kWeb);
  PinTheIssuer();
  StartProxy();
  ASSERT_TRUE(IsConnected());
  EXPECT_EQ(snapshots_.front()->svid->id().uri(), kWeb);
  // The issuer's first set is empty: the trust domain is let in.
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->HasPolicy(); }));
  EXPECT_TRUE(Lets("spiffe://example.org/db"));
  EXPECT_LT(std::abs(manager_->gauges().clock_skew_seconds), 2);
}

TEST_F(IssuedIdentityTest, PoliciesAndEndpointsReachTheProxy) {
  MakeToken("spiffe://example.org/db", "198.18.0.7/32");
  MakeToken(kWeb);
  PinTheIssuer();
  StartProxy();
  ASSERT_TRUE(IsConnected());
  PutPolicy(
      "apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"
      "spec: {action: ALLOW, rules: [{from: [{spiffeIds: ['spiffe://example.org/a']}]}]}\n");
  // The first set, which is empty, lets both in.
  EXPECT_TRUE(
      RunUntil(*loop_, [&] { return manager_->HasPolicy() && !Lets("spiffe://example.org/b"); }));
  EXPECT_TRUE(Lets("spiffe://example.org/a"));
  EXPECT_EQ(Look("198.18.0.7:5432"), "spiffe://example.org/db");
  EXPECT_EQ(Look("198.18.0.8:5432"), "plaintext");
}

TEST_F(IssuedIdentityTest, BothSidesRestartWithoutANewToken) {
  MakeToken(kWeb);
  PinTheIssuer();
  StartProxy();
  ASSERT_TRUE(IsConnected());
  const std::string serial = snapshots_.back()->svid->serial();
  const uint16_t port = issuer_->grpc_port();
  manager_.reset();
  issuer_.reset();
  StartProxy();
  ASSERT_EQ(snapshots_.size(), 1U);
  EXPECT_EQ(snapshots_.back()->svid->serial(), serial);
  StartIssuer(port);
  EXPECT_TRUE(IsConnected());
  EXPECT_EQ(manager_->status().renewals_ok, 0U);  // none was needed
}

TEST_F(IssuedIdentityTest, AUnixSocketIsEvidenceEnough) {
  v1::CreateEntryRequest request;
  request.mutable_entry()->set_spiffe_id(kWeb);
  request.mutable_entry()->add_selectors("unix:uid:" + std::to_string(getuid()));
  v1::Entry response;
  grpc::ClientContext context;
  ASSERT_TRUE(Admin().stub().CreateEntry(&context, request, &response).ok());
  proxy_.issuer = "unix:" + dir_.Path("issuer.sock");
  proxy_.trust_domain.clear();
  proxy_.join_token_file.clear();
  StartProxy();
  ASSERT_TRUE(IsConnected());
  EXPECT_EQ(snapshots_.back()->svid->id().uri(), kWeb);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->HasPolicy(); }));
}

class ShortLivedIdentityTest : public IssuedIdentityTest {
 protected:
  ShortLivedIdentityTest() : IssuedIdentityTest(absl::Seconds(10)) {}

  grpc::Status Rotate(v1::RotationStep step) const {
    v1::RotateCaRequest request;
    request.set_kind(v1::CA_KIND_ROOT);
    request.set_step(step);
    v1::CaStatus response;
    grpc::ClientContext context;
    return Admin().stub().RotateCa(&context, request, &response);
  }
  const x509::TrustBundle& Bundle() const {
    return *snapshots_.back()->bundles->Find("example.org");
  }
  std::string Intermediate() const {
    return x509::CertificateToDer(snapshots_.back()->svid->chain()[1].get());
  }
};

// The pin names the first root for ever; what came later over the authenticated stream counts.
TEST_F(ShortLivedIdentityTest, APinnedProxySurvivesTheRotationOfTheRoot) {
  MakeToken(kWeb);
  PinTheIssuer();
  StartProxy();
  ASSERT_TRUE(IsConnected());
  const std::string first = Intermediate();
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_PREPARE).ok());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Bundle().roots().size() == 2; }));
  // The acknowledgement is under way: asked again until it is there.
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Rotate(v1::ROTATION_STEP_ACTIVATE).ok(); }));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Intermediate() != first; }));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Rotate(v1::ROTATION_STEP_RETIRE).ok(); }));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Bundle().roots().size() == 1; }));
  EXPECT_EQ(Bundle().retired_roots().size(), 1U);
  manager_.reset();
  StartProxy();
  ASSERT_TRUE(IsConnected());
  EXPECT_EQ(Bundle().roots().size(), 1U);
  EXPECT_EQ(manager_->status().renewals_failed, 0U);
}

}  // namespace
}  // namespace postern
