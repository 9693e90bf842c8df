// SPDX-License-Identifier: Apache-2.0
// The issuer with a CA from --ca-dir: what it issues, what it says of a bad one, when it changes.
#include <gmock/gmock.h>

#include "common/x509/chain_verifier.h"
#include "tests/testing/ca_mount.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using testing::CaMount;
using testing::CaSpec;
using ::testing::HasSubstr;
using testing::TestCa;

class PluggedCaProcessTest : public IssuerProcessTest {
 protected:
  void SetUp() override {
    ca_dir_ = mount_.path();
    mount_.Write(first_);
    StartIssuer();
  }
  void Tick(int times) {
    for (int i = 0; i < times; ++i) {
      issuer_->Tick();
    }
  }
  Certified CertifyWeb(const rpc::IssuerChannel& channel) {
    return Certify(channel, ByToken(NewToken(WebEntry())));
  }
  // A channel of a client that trusts this CA's root alone.
  rpc::IssuerChannel ChannelTrusting(const TestCa& ca) const {
    rpc::IssuerChannelOptions options;
    options.target = base::StrCat("127.0.0.1:", issuer_->grpc_port());
    options.trust = rpc::IssuerTrust{*x509::TrustDomain::Parse("example.org"),
                                     std::make_shared<x509::TrustBundleSet>(ca.BundleSet()),
                                     {}};
    return *rpc::IssuerChannel::Create(options);
  }
  static bool IssuedBy(const Certified& certified, const TestCa& ca) {
    return certified.svid != nullptr &&
           X509_cmp(certified.svid->chain()[1].get(), ca.certificate()) == 0;
  }
  std::string Metrics() const { return issuer_->Metrics(); }

  CaMount mount_{directory_.path() + "/ca"};
  const TestCa root_{"example.org", CaSpec("root")};
  const TestCa team_ = root_.Intermediate(CaSpec("team"));
  const TestCa first_ = team_.Intermediate(CaSpec("first issuing"));
  const TestCa other_root_{"example.org", CaSpec("other root")};
  const TestCa other_ = other_root_.Intermediate(CaSpec("other issuing"));
};

TEST_F(PluggedCaProcessTest, IssuesADeepChainWithoutItsRoot) {
  const Certified certified = CertifyWeb(ChannelTrusting(root_));
  ASSERT_TRUE(certified.status.ok()) << certified.status.error_message();
  const auto& chain = certified.svid->chain();
  ASSERT_EQ(chain.size(), 3U);
  EXPECT_EQ(X509_cmp(chain[1].get(), first_.certificate()), 0);
  EXPECT_EQ(X509_cmp(chain[2].get(), team_.certificate()), 0);
  EXPECT_TRUE(x509::VerifyPeerChain(certified.svid->leaf(), x509::ShareX509Stack(chain).get(),
                                    root_.BundleSet(), x509::PeerRole::kServer, absl::Now())
                  .peer.has_value());
}

TEST_F(PluggedCaProcessTest, ABadOneIsNamedAndChangesNothingElse) {
  mount_.Put("ca-key.pem", testing::KeyPem(testing::MakeKey().get()));
  Tick(5);
  EXPECT_TRUE(issuer_->CheckReady().ok()) << issuer_->CheckReady();
  EXPECT_THAT(Metrics(), HasSubstr("postern_issuer_ca_refused_total{problem=\"key_mismatch\"} 1"));
  EXPECT_THAT(Metrics(), HasSubstr("postern_issuer_ca_refusing 1"));
  EXPECT_TRUE(IssuedBy(CertifyWeb(ChannelTrusting(root_)), first_));
  mount_.Write(team_);
  Tick(2);
  EXPECT_THAT(Metrics(), HasSubstr("postern_issuer_ca_refusing 0"));
  EXPECT_THAT(Metrics(), HasSubstr("postern_issuer_ca_changes_total 1"));
  EXPECT_TRUE(IssuedBy(CertifyWeb(ChannelTrusting(root_)), team_));
}

TEST_F(PluggedCaProcessTest, AnotherCaTakesOverWhileClientsRenew) {
  const Certified before = CertifyWeb(ChannelTrusting(root_));
  ASSERT_TRUE(before.status.ok()) << before.status.error_message();
  const uint64_t version = before.response.bundles().version().sequence();
  mount_.Write(other_);
  Tick(3);
  // The port has a certificate of the new CA, and trusts what the one before has signed.
  rpc::IssuerChannelOptions options;
  options.target = base::StrCat("127.0.0.1:", issuer_->grpc_port());
  options.trust = rpc::IssuerTrust{*x509::TrustDomain::Parse("example.org"),
                                   std::make_shared<x509::TrustBundleSet>(other_root_.BundleSet()),
                                   {}};
  options.client = before.svid;
  const Certified renewed = Certify(*rpc::IssuerChannel::Create(options), ByCertificate());
  ASSERT_TRUE(renewed.status.ok()) << renewed.status.error_message();
  EXPECT_TRUE(IssuedBy(renewed, other_));
  EXPECT_GT(renewed.response.bundles().version().sequence(), version);
  ASSERT_EQ(renewed.response.bundles().bundles_size(), 1);
  EXPECT_EQ(renewed.response.bundles().bundles(0).root_der_size(), 2);
  EXPECT_THAT(Metrics(), HasSubstr("postern_issuer_ca_leaving_roots 1"));
}

TEST_F(PluggedCaProcessTest, SurvivesARestartAndDoesNotForgetTheDirectory) {
  issuer_.reset();
  StartIssuer();
  EXPECT_TRUE(IssuedBy(CertifyWeb(ChannelTrusting(root_)), first_));
  issuer_.reset();
  IssuerConfig config{*x509::TrustDomain::Parse("example.org"), directory_.path() + "/state"};
  config.listen = {"127.0.0.1", 0};
  config.admin = {"127.0.0.1", 0};
  config.socket = directory_.path() + "/identity.sock";
  const auto without = IssuerProcess::Start(config, *clock_);
  EXPECT_TRUE(absl::IsFailedPrecondition(without.status()));
  EXPECT_THAT(without.status().ToString(), HasSubstr("--ca-dir is not given"));
  config.ca_dir = directory_.path() + "/empty";
  const auto empty = IssuerProcess::Start(config, *clock_);
  EXPECT_TRUE(absl::IsFailedPrecondition(empty.status()));
  EXPECT_THAT(empty.status().ToString(), HasSubstr("holds no CA"));
}

TEST(PluggedCaFlagsTest, GoTogether) {
  const auto parse = [](std::vector<const char*> flags) {
    std::vector<const char*> arguments = {"postern-identity", "--trust-domain", "example.org",
                                          "--state-dir", "/s"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return ParseIssuerConfig(static_cast<int>(arguments.size()), arguments.data());
  };
  const ParseOutcome all = parse({"--ca-dir", "/ca", "--ca-roots", "/roots.pem", "--ca-key",
                                  "pkcs11:object=ca", "--ca-key-pin-file", "/pin"});
  ASSERT_TRUE(all.config.has_value()) << all.exit->text;
  EXPECT_EQ(all.config->ca_dir, "/ca");
  EXPECT_EQ(all.config->ca_roots, "/roots.pem");
  EXPECT_EQ(all.config->ca_key, "pkcs11:object=ca");
  EXPECT_EQ(all.config->ca_key_pin_file, "/pin");
  const std::pair<std::vector<const char*>, const char*> bad[] = {
      {{"--ca-roots", "/roots.pem"}, "--ca-roots: goes with --ca-dir"},
      {{"--ca-key", "pkcs11:object=ca"}, "--ca-key: goes with --ca-dir"},
      {{"--ca-dir", "/ca", "--ca-key-pin-file", "/pin"}, "--ca-key-pin-file: goes with --ca-key"},
      {{"--ca-dir", "/ca", "--ca-key", "/key.pem"}, "--ca-key: not a usable PKCS#11 URI"},
      {{"--ca-dir", "/ca", "--ca-key", "pkcs11:object=ca?pin-value=1"}, "a file of its own"}};
  for (const auto& [flags, why] : bad) {
    const ParseOutcome outcome = parse(flags);
    ASSERT_TRUE(outcome.exit.has_value()) << why;
    EXPECT_EQ(outcome.exit->exit_code, 2);
    EXPECT_THAT(outcome.exit->text, HasSubstr(why));
  }
}

}  // namespace
}  // namespace postern::service
