// SPDX-License-Identifier: Apache-2.0
// The issuer's port from both ends: a real gRPC server on loopback, and channels to it.
#include <grpc/grpc_security.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "common/rpc/issuer_channel.h"
#include "common/rpc/issuer_server.h"
#include "common/x509/certificate.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::rpc {
namespace {

using testing::TestCa;

constexpr char kIssuer[] = "spiffe://example.org/postern/identity";
constexpr char kWeb[] = "spiffe://example.org/web";

// Verifies its client and says in the status who it is.
class WhoAmI final : public grpc::CallbackGenericService {
 public:
  explicit WhoAmI(const TestCa& ca)
      : bundles_(ca.BundleSet()), intermediates_(ca.Intermediates()) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    class Reactor final : public grpc::ServerGenericBidiReactor {
     public:
      void OnDone() override { delete this; }  // gRPC's reactors end themselves
    };
    auto* reactor = new Reactor;
    const auto verdict =
        VerifyClient(*context->auth_context(), bundles_, {intermediates_}, absl::Now());
    // An error status carries a message; OK does not.
    reactor->Finish(grpc::Status(grpc::StatusCode::ALREADY_EXISTS,
                                 verdict.peer.has_value()
                                     ? verdict.peer->id.uri()
                                     : std::string(base::Token(verdict.error.reason))));
    return reactor;
  }

 private:
  const x509::TrustBundleSet bundles_;
  const std::vector<x509::X509Ptr> intermediates_;
};

// How often gRPC wanted the system's roots. It reads them once for each process, at the first
// credentials that name none.
std::atomic<int> asked_for_system_roots{0};

grpc_ssl_roots_override_result OnSystemRoots(char** /*pem*/) {
  ++asked_for_system_roots;
  return GRPC_SSL_ROOTS_OVERRIDE_FAIL;  // take the system's
}

class IssuerPortTest : public ::testing::Test {
 public:
  static void SetUpTestSuite() {
    unsetenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH");  // with it the callback is not asked
    grpc_set_ssl_roots_override_callback(&OnSystemRoots);
  }

 protected:
  IssuerPortTest() : intermediate_(root_.Intermediate()), service_(intermediate_) {}
  ~IssuerPortTest() override {
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now());
    }
  }

  // Serves `svid`, whose root is `root`'s.
  void Serve(const x509::Svid& svid, const TestCa& root) {
    credentials_ = IssuerServerCredentials::Create(svid, root.root()).value();
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials_->credentials(), &port_);
    builder.AddListeningPort("unix:" + socket(), credentials_->credentials());
    builder.RegisterCallbackGenericService(&service_);
    ApplyServerLimits(builder);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    ASSERT_NE(port_, 0);
  }
  void ServeTheIssuer() { Serve(intermediate_.Issue(kIssuer), root_); }

  std::string socket() const { return dir_.Path("s"); }

  IssuerChannelOptions Trusting(const TestCa& ca) const {
    IssuerChannelOptions options;
    options.target = "127.0.0.1:" + std::to_string(port_);
    options.trust = IssuerTrust{
        root_.trust_domain(), std::make_shared<const x509::TrustBundleSet>(ca.BundleSet()), {}};
    return options;
  }
  IssuerChannelOptions Pinning(X509* root) const {
    IssuerChannelOptions options;
    options.target = "127.0.0.1:" + std::to_string(port_);
    options.trust = IssuerTrust{root_.trust_domain(), nullptr, x509::Sha256OfCertificate(root)};
    return options;
  }

  static grpc::Status Call(const IssuerChannel& channel, size_t request_bytes = 0) {
    grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(channel.channel());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    const grpc::Slice bytes(std::string(request_bytes, 'x'));
    const grpc::ByteBuffer request(&bytes, 1);
    grpc::ByteBuffer response;
    const auto done = std::make_shared<std::promise<grpc::Status>>();
    stub.UnaryCall(&context, "/test/WhoAmI", {}, &request, &response,
                   [done](grpc::Status status) { done->set_value(std::move(status)); });
    return done->get_future().get();
  }
  // Whom the server took the client for, or why it took it for nobody.
  static std::string Ask(const IssuerChannelOptions& options) {
    const IssuerChannel channel = IssuerChannel::Create(options).value();
    const grpc::Status status = Call(channel);
    return status.error_code() == grpc::StatusCode::ALREADY_EXISTS
               ? status.error_message()
               : "refused: " + channel.LastRefusal();
  }
  std::string AskAs(x509::Svid client) const {
    IssuerChannelOptions options = Trusting(root_);
    options.client = std::make_shared<const x509::Svid>(std::move(client));
    return Ask(options);
  }

  testing::TempDir dir_;
  const TestCa root_;
  const TestCa intermediate_;
  WhoAmI service_;
  std::unique_ptr<IssuerServerCredentials> credentials_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

TEST_F(IssuerPortTest, ReachesTheIssuerOfItsBundle) {
  ServeTheIssuer();
  EXPECT_EQ(Ask(Trusting(root_)), "peer_no_certificate");
}

TEST_F(IssuerPortTest, RefusesAServerOfAnotherIdentity) {
  Serve(intermediate_.Issue("spiffe://example.org/postern/identity2"), root_);
  EXPECT_EQ(Ask(Trusting(root_)),
            "refused: the server is spiffe://example.org/postern/identity2, not the issuer "
            "spiffe://example.org/postern/identity");
}

TEST_F(IssuerPortTest, RefusesAnIssuerOfAnotherRoot) {
  const TestCa other;
  Serve(other.Issue(kIssuer), other);
  EXPECT_NE(
      Ask(Trusting(root_)).find("refused: the issuer's certificate is refused (peer_untrusted"),
      std::string::npos);
}

TEST_F(IssuerPortTest, RefusesAnExpiredIssuer) {
  Serve(intermediate_.Issue(kIssuer, absl::Now() - absl::Hours(2), absl::Hours(1)), root_);
  EXPECT_NE(Ask(Trusting(root_)).find("(peer_expired)"), std::string::npos);
}

TEST_F(IssuerPortTest, JudgesTheIssuerByTheInjectedClock) {
  struct : base::Clock {
    absl::Time Now() const override { return absl::Now() + absl::Hours(72); }
    absl::Duration SinceBoot() const override { return absl::ZeroDuration(); }
    absl::Duration Awake() const override { return absl::ZeroDuration(); }
  } in_three_days;
  ServeTheIssuer();
  IssuerChannelOptions options = Trusting(root_);
  options.clock = &in_three_days;
  EXPECT_NE(Ask(options).find("(peer_expired)"), std::string::npos);
}

TEST_F(IssuerPortTest, ReachesTheIssuerOfItsPin) {
  ServeTheIssuer();
  EXPECT_EQ(Ask(Pinning(root_.root())), "peer_no_certificate");
}

TEST_F(IssuerPortTest, RefusesAnIssuerOfAnotherPin) {
  const TestCa other;
  ServeTheIssuer();
  EXPECT_EQ(Ask(Pinning(other.root())),
            "refused: no root certificate that the issuer sent is the one that the pin names");
}

TEST_F(IssuerPortTest, RefusesAPinnedRootThatDidNotSignTheChain) {
  const TestCa other;
  // The right root is sent, under a chain of another.
  Serve(other.Issue(kIssuer), root_);
  EXPECT_NE(Ask(Pinning(root_.root())).find("(peer_untrusted)"), std::string::npos);
}

TEST_F(IssuerPortTest, DoesNotTakeAPinnedIntermediateForARoot) {
  const TestCa foreign;
  const TestCa below = foreign.Intermediate();
  Serve(below.Issue(kIssuer), foreign);
  EXPECT_EQ(Ask(Pinning(below.certificate())),
            "refused: no root certificate that the issuer sent is the one that the pin names");
}

TEST_F(IssuerPortTest, IgnoresThePinOnceThereAreBundles) {
  const TestCa other;
  ServeTheIssuer();
  IssuerChannelOptions options = Trusting(root_);
  options.trust->pin = x509::Sha256OfCertificate(other.root());
  EXPECT_EQ(Ask(options), "peer_no_certificate");
}

TEST_F(IssuerPortTest, VerifiesAClientOfItsOwnIntermediate) {
  ServeTheIssuer();
  EXPECT_EQ(AskAs(intermediate_.Issue(kWeb)), kWeb);
}

TEST_F(IssuerPortTest, VerifiesAClientThatSendsItsLeafAlone) {
  ServeTheIssuer();
  testing::Minted minted = intermediate_.Mint(kWeb);
  minted.chain.resize(1);
  EXPECT_EQ(AskAs(x509::Svid::Create(std::move(minted.chain), std::move(minted.key)).value()),
            kWeb);
}

TEST_F(IssuerPortTest, VerifiesAClientOfAnIntermediateThatItSends) {
  ServeTheIssuer();
  EXPECT_EQ(AskAs(root_.Intermediate().Issue(kWeb)), kWeb);
}

TEST_F(IssuerPortTest, SaysThatAForeignClientIsUntrusted) {
  ServeTheIssuer();
  EXPECT_EQ(AskAs(TestCa().Issue(kWeb)), "peer_untrusted");
  EXPECT_EQ(AskAs(TestCa("other.org").Issue("spiffe://other.org/web")), "trust_domain_unknown");
}

TEST_F(IssuerPortTest, SaysThatAnExpiredClientIsExpired) {
  ServeTheIssuer();
  EXPECT_EQ(AskAs(intermediate_.Issue(kWeb, absl::Now() - absl::Hours(2), absl::Hours(1))),
            "peer_expired");
}

TEST_F(IssuerPortTest, ServesAReplacedCertificateOnNewConnections) {
  const TestCa other;
  ServeTheIssuer();
  const IssuerChannel standing = IssuerChannel::Create(Trusting(root_)).value();
  EXPECT_EQ(Call(standing).error_message(), "peer_no_certificate");

  ASSERT_TRUE(credentials_->Replace(other.Issue(kIssuer), other.root()).ok());
  EXPECT_EQ(Ask(Trusting(other)), "peer_no_certificate");
  EXPECT_NE(Ask(Trusting(root_)).find("refused"), std::string::npos);
  EXPECT_EQ(Ask(Pinning(other.root())), "peer_no_certificate");
  // A connection that stands is not disturbed.
  EXPECT_EQ(Call(standing).error_message(), "peer_no_certificate");
}

TEST_F(IssuerPortTest, ServesAReplacedCertificateOnEveryPort) {
  const TestCa other;
  ServeTheIssuer();
  ASSERT_TRUE(credentials_->Replace(other.Issue(kIssuer), other.root()).ok());
  int second = 0;
  grpc::ServerBuilder builder;
  WhoAmI service(other);
  builder.AddListeningPort("127.0.0.1:0", credentials_->credentials(), &second);
  builder.RegisterCallbackGenericService(&service);
  const auto server = builder.BuildAndStart();
  IssuerChannelOptions options = Trusting(other);
  EXPECT_EQ(Ask(options), "peer_no_certificate");
  options.target = "127.0.0.1:" + std::to_string(second);
  EXPECT_EQ(Ask(options), "peer_no_certificate");
  server->Shutdown(std::chrono::system_clock::now());
}

TEST_F(IssuerPortTest, TakesOneIdentityForEachChannel) {
  ServeTheIssuer();
  // Channels to one target must not share a connection, and with it a certificate.
  EXPECT_EQ(AskAs(intermediate_.Issue(kWeb)), kWeb);
  EXPECT_EQ(AskAs(intermediate_.Issue("spiffe://example.org/db")), "spiffe://example.org/db");
  EXPECT_EQ(Ask(Trusting(root_)), "peer_no_certificate");
}

// A megabyte of certificates that nobody looks at. Every test of this fixture that has run counts.
TEST_F(IssuerPortTest, DoesNotReadTheRootsOfTheSystem) {
  ServeTheIssuer();
  EXPECT_EQ(Ask(Trusting(root_)), "peer_no_certificate");
  EXPECT_EQ(Ask(Pinning(root_.root())), "peer_no_certificate");
  EXPECT_EQ(AskAs(intermediate_.Issue(kWeb)), kWeb);
  EXPECT_EQ(asked_for_system_roots, 0);
}

TEST_F(IssuerPortTest, BoundsWhatAClientMaySend) {
  ServeTheIssuer();
  const IssuerChannel channel = IssuerChannel::Create(Trusting(root_)).value();
  EXPECT_EQ(Call(channel, kMaxRequestBytes + 1).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(IssuerPortTest, SpeaksPlainlyOverAUnixSocket) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket(), grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(&service_);
  server_ = builder.BuildAndStart();
  IssuerChannelOptions options;
  options.target = "unix:" + socket();
  EXPECT_EQ(Ask(options), "peer_no_certificate");
}

TEST(IssuerChannelTest, RefusesATargetThatIsNone) {
  const TestCa ca;
  IssuerChannelOptions options;
  options.trust = IssuerTrust{
      ca.trust_domain(), std::make_shared<const x509::TrustBundleSet>(ca.BundleSet()), {}};
  for (const char* target : {"", "issuer", ":15012", "issuer:", "unix:", "dns:///issuer:15012",
                             "::1:15012", "[issuer]:15012", "issuer:0", "issuer:https"}) {
    options.target = target;
    EXPECT_TRUE(absl::IsInvalidArgument(IssuerChannel::Create(options).status())) << target;
  }
  for (const char* target : {"192.0.2.1:15012", "[2001:db8::1]:15012", "issuer:15012",
                             "issuer.mesh.svc.cluster.local.:15012"}) {
    options.target = target;
    EXPECT_TRUE(IssuerChannel::Create(options).ok()) << target;
  }
}

TEST(IssuerChannelTest, RefusesToConnectWithoutAWayToKnowTheIssuer) {
  const TestCa ca("other.org");
  IssuerChannelOptions options;
  options.target = "127.0.0.1:1";
  EXPECT_TRUE(absl::IsInvalidArgument(IssuerChannel::Create(options).status()));
  const auto trust_domain = x509::TrustDomain::Parse("example.org").value();
  options.trust = IssuerTrust{trust_domain, nullptr, {}};
  EXPECT_TRUE(absl::IsInvalidArgument(IssuerChannel::Create(options).status()));
  options.trust->bundles = std::make_shared<const x509::TrustBundleSet>(ca.BundleSet());
  EXPECT_TRUE(absl::IsInvalidArgument(IssuerChannel::Create(options).status()));
}

}  // namespace
}  // namespace postern::rpc
