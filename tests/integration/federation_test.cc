// SPDX-License-Identifier: Apache-2.0
// Two issuers of two trust domains that are federated with each other, and proxies of each side
// that talk: what each trusts comes over its own issuer's stream.
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "common/rpc/issuer_channel.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"
#include "control/federation/bundle_endpoint.h"
#include "control/service/issuer_process.h"
#include "postern/v1/identity.grpc.pb.h"
#include "proxy/identity/identity_manager.h"
#include "tests/integration/issuer_admin.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"

namespace postern {
namespace {

using base::CloseReason;
using ::testing::HasSubstr;
using testing::IssuerAdmin;
using testing::RunUntil;
using testing::Socket;
using testing::TestCa;
using testing::TestProxy;
using ::testing::UnorderedElementsAre;

// One trust domain: its issuer, in this process.
class Side {
 public:
  Side(const testing::TempDir& dir, std::string trust_domain)
      : trust_domain_(std::move(trust_domain)),
        config_{*x509::TrustDomain::Parse(trust_domain_), dir.Path(trust_domain_ + ".state")} {
    config_.listen = {"127.0.0.1", 0};
    config_.admin = {"127.0.0.1", 0};
    config_.socket = dir.Path(trust_domain_ + ".sock");
    config_.bundle_endpoint = service::ListenAddress{"127.0.0.1", 0};
  }

  void Start() {
    auto started = service::IssuerProcess::Start(config_, base::Clock::System());
    ASSERT_TRUE(started.ok()) << started.status();
    issuer_ = *std::move(started);
    config_.bundle_endpoint->port = issuer_->bundle_endpoint_port();  // the same after a restart
    config_.listen.port = issuer_->grpc_port();
  }
  void Stop() { issuer_.reset(); }
  void Federate(const std::string& spec) {
    config_.federate.push_back(*federation::FederationSpec::Parse(spec));
  }
  void ForgetFederations() { config_.federate.clear(); }

  std::string Url() const {
    return base::StrCat("https://127.0.0.1:", config_.bundle_endpoint->port);
  }
  // How others federate with this side, by its own identity.
  std::string Spec(const std::string& bundle_file) const {
    return base::StrCat("trust-domain=", trust_domain_, ",url=", Url(),
                        ",profile=https_spiffe,endpoint-id=spiffe://", trust_domain_,
                        "/postern/identity,bundle=", bundle_file);
  }
  IssuerAdmin Admin() const { return IssuerAdmin(config_.socket); }
  v1::BundleSet Bundles() const { return Admin().Bundles(); }
  std::vector<std::string> TrustDomains() const {
    std::vector<std::string> names;
    const v1::BundleSet set = Bundles();
    for (const v1::TrustBundle& bundle : set.bundles()) {
      names.push_back(bundle.trust_domain());
    }
    return names;
  }
  grpc::Status Refresh(const std::string& trust_domain = "", bool accept_older = false,
                       v1::BundleList* list = nullptr) const {
    v1::RefreshBundlesRequest request;
    request.set_trust_domain(trust_domain);
    request.set_accept_older(accept_older);
    v1::BundleList response;
    grpc::ClientContext context;
    const grpc::Status status = Admin().stub().RefreshBundles(&context, request, &response);
    if (list != nullptr) {
      *list = response;
    }
    return status;
  }
  x509::X509Ptr Root() const { return Admin().Root(); }
  std::string NewToken(const std::string& id) const { return Admin().CreateToken(id); }
  std::string Metrics() const { return issuer_->Metrics(); }
  const std::string& trust_domain() const { return trust_domain_; }
  uint16_t grpc_port() const { return issuer_->grpc_port(); }
  service::IssuerConfig& config() { return config_; }

 private:
  const std::string trust_domain_;
  service::IssuerConfig config_;
  std::unique_ptr<service::IssuerProcess> issuer_;
};

// A workload of one side: its identity from the issuer, and the newest snapshot of it.
class Workload {
 public:
  Workload(const testing::TempDir& dir, net::Loop& loop, const Side& side, const std::string& name)
      : loop_(loop), id_(base::StrCat("spiffe://", side.trust_domain(), "/", name)) {
    config_.issuer = base::StrCat("127.0.0.1:", side.grpc_port());
    config_.trust_domain = side.trust_domain();
    config_.issuer_pin = std::string(base::AsText(x509::Sha256OfCertificate(side.Root().get())));
    config_.state_dir = dir.Path(side.trust_domain() + "." + name);
    config_.join_token_file = dir.Write(name + ".token", side.NewToken(id_));
    manager_ = identity::IdentityManager::Create(
                   config_, loop_, base::Clock::System(),
                   {[this](auto snapshot) { snapshot_ = std::move(snapshot); }, [](auto) {}})
                   .value();
    manager_->Start();
  }

  const std::string& id() const { return id_; }
  const identity::IdentitySnapshot& snapshot() const { return *snapshot_; }
  bool Trusts(const std::string& trust_domain) const {
    return snapshot_ != nullptr && snapshot_->bundles->Find(trust_domain) != nullptr;
  }
  size_t RootsOf(const std::string& trust_domain) const {
    return Trusts(trust_domain) ? snapshot_->bundles->Find(trust_domain)->roots().size() : 0;
  }
  bool AwaitTrust(const std::string& trust_domain) {
    return RunUntil(loop_, [&] { return Trusts(trust_domain); });
  }
  // Gives a data plane what this workload has.
  void Publish(TestProxy& proxy) const {
    const x509::Svid& own = *snapshot_->svid;
    std::vector<x509::X509Ptr> chain;
    for (const x509::X509Ptr& certificate : own.chain()) {
      chain.push_back(x509::ShareX509(certificate.get()));
    }
    std::vector<x509::TrustBundle> bundles;
    for (const auto& [name, bundle] : snapshot_->bundles->bundles()) {
      std::vector<x509::X509Ptr> roots;
      for (const x509::X509Ptr& root : bundle.roots()) {
        roots.push_back(x509::ShareX509(root.get()));
      }
      bundles.push_back(x509::TrustBundle::Create(bundle.trust_domain(), std::move(roots)).value());
    }
    proxy.PublishIdentity(x509::Svid::Create(std::move(chain), x509::SharePkey(own.key())).value(),
                          x509::TrustBundleSet(std::move(bundles)));
  }

 private:
  net::Loop& loop_;
  const std::string id_;
  config::ProxyConfig config_;
  std::shared_ptr<const identity::IdentitySnapshot> snapshot_;
  std::unique_ptr<identity::IdentityManager> manager_;
};

class FederationTest : public ::testing::Test {
 protected:
  FederationTest() : loop_(net::Loop::Create().value()) {
    a_.Start();
    b_.Start();
  }

  // Hands a side's bundle over as its operator would, in a file.
  std::string BundleFile(const Side& side) {
    const v1::BundleSet set = side.Bundles();
    std::vector<x509::X509Ptr> roots;
    for (const std::string& der : set.bundles(0).root_der()) {
      roots.push_back(x509::CertificateFromDer(base::AsBytes(der)).value());
    }
    const auto bundle =
        x509::TrustBundle::Create(*x509::TrustDomain::Parse(side.trust_domain()), std::move(roots));
    return dir_.Write(side.trust_domain() + ".json",
                      x509::SpiffeBundleToJson(*bundle, std::nullopt, std::nullopt));
  }
  // Each side federated with the other by the other's own identity; both restarted.
  void FederateBoth() {
    const std::string of_b = b_.Spec(BundleFile(b_));
    const std::string of_a = a_.Spec(BundleFile(a_));
    a_.Federate(of_b);
    b_.Federate(of_a);
    for (Side* side : {&a_, &b_}) {
      side->Stop();
      side->Start();
    }
    for (Side* side : {&a_, &b_}) {
      const grpc::Status refreshed = side->Refresh();
      EXPECT_TRUE(refreshed.ok()) << refreshed.error_message();
    }
  }
  // A proxy of `client` that dials one of `server`, and the answer to "hello"; empty: none.
  struct Talk {
    std::string answer, client_reasons, server_reasons;
    bool refused_at_client = false;
  };
  Talk Between(const Workload& client, const Workload& server) {
    testing::Server app(&testing::Echo);
    TestProxy inbound;
    inbound.AddTunnel(base::Direction::kInbound, "127.0.0.1:0",
                      base::StrCat("127.0.0.1:", app.port()), {client.id()});
    inbound.Start();
    // To be known is not to be let in: that is policy's to say.
    inbound.PublishPolicy(
        base::StrCat("apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"
                     "spec: {action: ALLOW, rules: [{from: [{spiffeIds: ['",
                     client.id(), "']}]}]}\n"),
        server.id());
    server.Publish(inbound);
    TestProxy outbound;
    outbound.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                       base::StrCat("127.0.0.1:", inbound.Port()), {server.id()});
    outbound.Start();
    client.Publish(outbound);
    Talk talk;
    {
      Socket socket = outbound.Connect();
      socket.Send("hello");
      talk.answer = socket.ReadExactly(5);
    }
    EXPECT_TRUE(outbound.AwaitIdle());
    EXPECT_TRUE(inbound.AwaitIdle());
    talk.client_reasons = outbound.Reasons();
    talk.server_reasons = inbound.Reasons();
    inbound.Stop();
    outbound.Stop();
    return talk;
  }

  const testing::TempDir dir_;
  std::unique_ptr<net::Loop> loop_;
  Side a_{dir_, "a.test"};
  Side b_{dir_, "b.test"};
};

TEST_F(FederationTest, ProxiesOfTwoTrustDomainsTalkOnceTheirIssuersAreFederated) {
  {
    Workload web(dir_, *loop_, a_, "web");
    Workload db(dir_, *loop_, b_, "db");
    ASSERT_TRUE(web.AwaitTrust("a.test"));
    ASSERT_TRUE(db.AwaitTrust("b.test"));
    EXPECT_FALSE(web.Trusts("b.test"));
    const Talk before = Between(web, db);
    EXPECT_EQ(before.answer, "");
    EXPECT_THAT(before.client_reasons, HasSubstr("trust_domain_unknown"));
  }
  FederateBoth();
  Workload api(dir_, *loop_, a_, "api");
  Workload store(dir_, *loop_, b_, "store");
  ASSERT_TRUE(api.AwaitTrust("b.test"));
  ASSERT_TRUE(store.AwaitTrust("a.test"));
  EXPECT_EQ(api.RootsOf("b.test"), 1U);
  const Talk there = Between(api, store);
  EXPECT_EQ(there.answer, "hello") << there.client_reasons << "; " << there.server_reasons;
  const Talk back = Between(store, api);
  EXPECT_EQ(back.answer, "hello") << back.client_reasons << "; " << back.server_reasons;
}

TEST_F(FederationTest, AForeignBundleReachesConnectedProxiesUnderANewVersion) {
  Workload web(dir_, *loop_, a_, "web");
  ASSERT_TRUE(web.AwaitTrust("a.test"));
  const identity::Version before = web.snapshot().bundle_version;
  a_.Federate(b_.Spec(BundleFile(b_)));
  a_.Stop();
  a_.Start();
  ASSERT_TRUE(web.AwaitTrust("b.test"));
  EXPECT_GT(web.snapshot().bundle_version, before);
  const identity::Version with = web.snapshot().bundle_version;
  // Taken out of the configuration, it is taken away.
  a_.ForgetFederations();
  a_.Stop();
  a_.Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !web.Trusts("b.test"); }));
  EXPECT_GT(web.snapshot().bundle_version, with);
}

TEST_F(FederationTest, ARestartHasWhatIsHeldThoughTheOtherSideIsAway) {
  FederateBoth();
  b_.Stop();
  const v1::BundleSet before = a_.Bundles();
  a_.Stop();
  a_.Start();
  EXPECT_THAT(a_.TrustDomains(), UnorderedElementsAre("a.test", "b.test"));
  EXPECT_EQ(a_.Bundles().version().sequence(), before.version().sequence()) << "nothing changed";
  v1::BundleList list;
  const grpc::Status refreshed = a_.Refresh("b.test", false, &list);
  EXPECT_EQ(refreshed.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refreshed.error_message(), HasSubstr("unreachable"));
  EXPECT_THAT(a_.TrustDomains(), UnorderedElementsAre("a.test", "b.test"));
  EXPECT_THAT(a_.Metrics(), HasSubstr("postern_issuer_federated_roots{trust_domain=\"b.test\"} 1"));
  EXPECT_THAT(a_.Metrics(), HasSubstr("postern_issuer_federation_fetches_total{trust_domain="
                                      "\"b.test\",result=\"unreachable\"}"));
  EXPECT_THAT(a_.Metrics(), HasSubstr("postern_issuer_federated_bundle_age_seconds{"));
  // A restored issuer is believed again by what was kept.
  b_.Start();
  const grpc::Status again = a_.Refresh("b.test", false, &list);
  EXPECT_TRUE(again.ok()) << again.error_message();
  ASSERT_EQ(list.bundles_size(), 2);
  EXPECT_TRUE(list.bundles(0).own());
  EXPECT_EQ(list.bundles(1).trust_domain(), "b.test");
  EXPECT_GE(list.bundles(1).age_seconds(), 0);
  EXPECT_TRUE(list.bundles(1).has_sequence());
}

// A root of a.test signs a leaf that says it is of b.test, and the other way round; both bundles
// are held on both sides.
TEST_F(FederationTest, EachRootIsGoodForItsOwnTrustDomainOnly) {
  FederateBoth();
  Workload web(dir_, *loop_, a_, "web");
  ASSERT_TRUE(web.AwaitTrust("b.test"));
  const x509::TrustBundleSet& bundles = *web.snapshot().bundles;
  const TestCa a("a.test");
  const TestCa b("b.test");
  for (const auto& [signer, uri] :
       {std::pair(&a, "spiffe://b.test/db"), std::pair(&b, "spiffe://a.test/web")}) {
    // With the real bundles neither is known; with those of the two CAs only the right one is.
    const testing::Minted leaf = signer->Mint(uri);
    const x509::ChainVerdict real = x509::VerifyPeerChain(
        leaf.leaf(), leaf.Untrusted().get(), bundles, x509::PeerRole::kServer, absl::Now());
    EXPECT_EQ(real.error.reason, CloseReason::kPeerUntrusted);
    const x509::ChainVerdict crossed =
        x509::VerifyPeerChain(leaf.leaf(), leaf.Untrusted().get(), testing::BundleSetOf({&a, &b}),
                              x509::PeerRole::kServer, absl::Now());
    EXPECT_EQ(crossed.error.reason, CloseReason::kPeerUntrusted);
    // And over the wire, at a proxy that holds both.
    testing::Server app(&testing::Echo);
    TestProxy inbound;
    inbound.AddTunnel(base::Direction::kInbound, "127.0.0.1:0",
                      base::StrCat("127.0.0.1:", app.port()), {uri});
    inbound.Start();
    inbound.PublishPolicy(
        policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(web.id()).value()));
    inbound.PublishIdentity(a.Issue("spiffe://a.test/server"), testing::BundleSetOf({&a, &b}));
    {
      testing::RawTls peer(inbound.Connect(), {.certificate = &leaf});
      peer.Send("let me in");
      EXPECT_EQ(peer.Read(100), "");
    }
    EXPECT_TRUE(inbound.AwaitClosed(CloseReason::kPeerUntrusted)) << inbound.Reasons();
    EXPECT_EQ(app.accepted(), 0);
    inbound.Stop();
  }
}

// The issuer's own port knows its own trust domain alone.
TEST_F(FederationTest, AFederatedWorkloadGetsNothingFromTheOtherIssuer) {
  FederateBoth();
  Workload db(dir_, *loop_, b_, "db");
  ASSERT_TRUE(db.AwaitTrust("a.test"));
  rpc::IssuerChannelOptions options;
  options.target = base::StrCat("127.0.0.1:", a_.grpc_port());
  options.trust = rpc::IssuerTrust{*x509::TrustDomain::Parse("a.test"), db.snapshot().bundles, {}};
  options.client = db.snapshot().svid;
  const rpc::IssuerChannel channel = rpc::IssuerChannel::Create(options).value();
  v1::CertifyRequest request;
  request.mutable_existing_certificate();
  v1::CertifyResponse response;
  grpc::ClientContext context;
  const grpc::Status status =
      v1::Identity::NewStub(channel.channel())->Certify(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << status.error_message();
}

// A foreign trust domain changes its root: first both are served, then the new one alone, by an
// endpoint whose own certificate moves over in between.
TEST_F(FederationTest, AForeignRootRollsOver) {
  const TestCa old_root("c.test");
  const TestCa new_root("c.test");
  const std::string id = "spiffe://c.test/postern/identity";
  const auto endpoint = federation::BundleEndpoint::Listen("127.0.0.1", 0).value();
  const auto serve = [&](const std::vector<const TestCa*>& roots, const TestCa& signer,
                         uint64_t sequence) {
    std::vector<x509::X509Ptr> certificates;
    for (const TestCa* root : roots) {
      certificates.push_back(root->Root());
    }
    const auto bundle =
        x509::TrustBundle::Create(old_root.trust_domain(), std::move(certificates)).value();
    endpoint->SetDocument(x509::SpiffeBundleToJson(bundle, sequence, absl::Minutes(5)));
    const x509::Svid own = signer.Issue(id);
    ASSERT_TRUE(endpoint->SetIdentity(own.chain(), own.key()).ok());
  };
  serve({&old_root}, old_root, 1);
  a_.Federate(base::StrCat("trust-domain=c.test,url=https://127.0.0.1:", endpoint->port(),
                           ",profile=https_spiffe,endpoint-id=", id,
                           ",bundle=", dir_.Write("c.pem", old_root.RootPem())));
  a_.Stop();
  a_.Start();
  Workload web(dir_, *loop_, a_, "web");
  ASSERT_TRUE(web.AwaitTrust("c.test"));
  const auto accepts = [&web](const TestCa& root) {
    const testing::Minted leaf = root.Mint("spiffe://c.test/db");
    return x509::VerifyPeerChain(leaf.leaf(), leaf.Untrusted().get(), *web.snapshot().bundles,
                                 x509::PeerRole::kServer, absl::Now())
        .peer.has_value();
  };
  EXPECT_TRUE(accepts(old_root));
  EXPECT_FALSE(accepts(new_root));

  serve({&old_root, &new_root}, old_root, 2);
  ASSERT_TRUE(a_.Refresh("c.test").ok());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return web.RootsOf("c.test") == 2; }));
  EXPECT_TRUE(accepts(old_root));
  EXPECT_TRUE(accepts(new_root));

  serve({&old_root, &new_root}, new_root, 2);
  ASSERT_TRUE(a_.Refresh("c.test").ok()) << "the endpoint is known by what it served";
  serve({&new_root}, new_root, 3);
  ASSERT_TRUE(a_.Refresh("c.test").ok());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return web.RootsOf("c.test") == 1; }));
  EXPECT_FALSE(accepts(old_root));
  EXPECT_TRUE(accepts(new_root));

  // Who holds the withdrawn root can serve nothing any more, nor go back.
  serve({&old_root}, old_root, 4);
  EXPECT_THAT(a_.Refresh("c.test").error_message(), HasSubstr("untrusted"));
  serve({&new_root}, new_root, 2);
  EXPECT_THAT(a_.Refresh("c.test").error_message(), HasSubstr("older_sequence"));
  EXPECT_TRUE(a_.Refresh("c.test", true).ok());
}

TEST_F(FederationTest, TheEndpointServesOurRootsWithASequenceThatGrows) {
  FederateBoth();
  v1::BundleList list;
  ASSERT_TRUE(a_.Refresh("b.test", false, &list).ok());
  const uint64_t first = list.bundles(1).sequence();
  EXPECT_GT(first, 0U);
  EXPECT_LT(first, uint64_t{1} << 53);
  EXPECT_EQ(list.bundles(1).refresh_seconds(), 300);
  EXPECT_EQ(list.bundles(1).root_der(0), b_.Bundles().bundles(0).root_der(0));
  EXPECT_THAT(b_.Metrics(), HasSubstr("postern_issuer_bundles_served_total"));
}

TEST_F(FederationTest, WrongConfigurationDoesNotStart) {
  Side c(dir_, "c.test");
  c.Federate("trust-domain=c.test,url=https://127.0.0.1:1,profile=https_web");
  const auto own = service::IssuerProcess::Start(c.config(), base::Clock::System());
  EXPECT_THAT(std::string(base::Message(own.status())), HasSubstr("our own trust domain"));
  c.ForgetFederations();
  c.config().bundle_endpoint_cert = dir_.Path("none.pem");
  c.config().bundle_endpoint_key = dir_.Path("none.key");
  const auto files = service::IssuerProcess::Start(c.config(), base::Clock::System());
  EXPECT_THAT(std::string(base::Message(files.status())), HasSubstr("--bundle-endpoint-cert"));
  c.config().bundle_endpoint_cert.clear();
  c.config().bundle_endpoint->port = a_.config().bundle_endpoint->port;
  const auto taken = service::IssuerProcess::Start(c.config(), base::Clock::System());
  EXPECT_THAT(std::string(base::Message(taken.status())), HasSubstr("--bundle-endpoint: "));
}

}  // namespace
}  // namespace postern
