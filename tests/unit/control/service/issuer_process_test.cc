// SPDX-License-Identifier: Apache-2.0
#include "control/service/issuer_process.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "common/base/bytes.h"
#include "common/base/ip.h"
#include "common/base/strings.h"
#include "common/rpc/issuer_channel.h"
#include "common/x509/certificate.h"
#include "common/x509/csr.h"
#include "common/x509/key.h"
#include "postern/v1/admin.grpc.pb.h"
#include "postern/v1/identity.grpc.pb.h"
#include "postern/v1/mesh.grpc.pb.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using ::testing::HasSubstr;

x509::SpiffeId Id(std::string_view text) {
  return *x509::SpiffeId::Parse(text);
}

TEST_F(IssuerProcessTest, ATokenGivesTheIdentityOfItsEntryOnce) {
  const std::string token = NewToken(WebEntry());
  const rpc::IssuerChannel channel = TcpChannel();
  const Certified first = Certify(channel, ByToken(token));
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  EXPECT_EQ(first.svid->id().uri(), "spiffe://example.org/web");
  EXPECT_EQ(first.response.spiffe_id(), "spiffe://example.org/web");
  EXPECT_GE(first.response.chain_der_size(), 2);
  EXPECT_EQ(first.response.not_after() - first.response.issued_at(), 3600);
  EXPECT_EQ(first.response.bundles().bundles_size(), 1);
  EXPECT_NEAR(static_cast<double>(first.response.issuer_time_ms()),
              static_cast<double>(absl::ToUnixMillis(absl::Now())), 5000.0);
  const Certified second = Certify(channel, ByToken(token));
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(issuer_->Metrics(),
              HasSubstr("postern_issuer_refused_total{reason=\"bad_token\"} 1"));
  EXPECT_THAT(issuer_->Metrics(),
              HasSubstr("postern_issuer_certificates_issued_total{evidence=\"join_token\"} 1"));
}

TEST_F(IssuerProcessTest, ACsrThatNamesAnotherIdentityIsRefused) {
  const Certified certified =
      Certify(TcpChannel(), ByToken(NewToken(WebEntry())), Id("spiffe://example.org/admin"));
  EXPECT_FALSE(certified.status.ok());
  EXPECT_EQ(certified.response.chain_der_size(), 0);
}

TEST_F(IssuerProcessTest, ACertificateRenewsItselfUntilItsEntryIsDeleted) {
  const Certified first = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  const Certified renewed = Certify(TcpChannel(first.svid), ByCertificate());
  ASSERT_TRUE(renewed.status.ok()) << renewed.status.error_message();
  EXPECT_EQ(renewed.svid->id(), first.svid->id());
  EXPECT_NE(renewed.svid->serial(), first.svid->serial());

  v1::DeleteEntryRequest request;
  request.set_id(last_entry_.id());
  v1::DeleteEntryResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(
      v1::Admin::NewStub(unix_channel_->channel())->DeleteEntry(&context, request, &response).ok());
  const Certified after = Certify(TcpChannel(renewed.svid), ByCertificate());
  EXPECT_EQ(after.status.error_code(), grpc::StatusCode::PERMISSION_DENIED)
      << after.status.error_message();
}

TEST_F(IssuerProcessTest, EvidenceThatTheChannelDoesNotBearOutIsRefused) {
  const rpc::IssuerChannel channel = TcpChannel();
  EXPECT_EQ(Certify(channel, ByCertificate()).status.error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  v1::CertifyRequest by_peer;
  by_peer.mutable_unix_peer();
  EXPECT_EQ(Certify(channel, by_peer).status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Certify(channel, v1::CertifyRequest()).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(IssuerProcessTest, AUnixPeerIsAttestedByItsCredentials) {
  v1::CreateEntryRequest request;
  *request.mutable_entry() = WebEntry();
  request.mutable_entry()->add_selectors(base::StrCat("unix:uid:", geteuid()));
  v1::Entry created;
  grpc::ClientContext context;
  ASSERT_TRUE(
      v1::Admin::NewStub(unix_channel_->channel())->CreateEntry(&context, request, &created).ok());
  v1::CertifyRequest by_peer;
  by_peer.mutable_unix_peer();
  const Certified certified = Certify(*unix_channel_, by_peer);
  ASSERT_TRUE(certified.status.ok()) << certified.status.error_message();
  EXPECT_EQ(certified.svid->id().uri(), "spiffe://example.org/web");
}

TEST_F(IssuerProcessTest, AdministrationIsNotServedOverTcp) {
  v1::ListEntriesResponse response;
  grpc::ClientContext context;
  const rpc::IssuerChannel channel = TcpChannel();
  EXPECT_EQ(v1::Admin::NewStub(channel.channel())
                ->ListEntries(&context, v1::ListEntriesRequest(), &response)
                .error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(IssuerProcessTest, ARestartKeepsTheCaAndTheEntries) {
  const Certified first = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
  ASSERT_TRUE(first.status.ok());
  unix_channel_.reset();
  issuer_.reset();
  StartIssuer();
  const Certified renewed = Certify(TcpChannel(first.svid), ByCertificate());
  ASSERT_TRUE(renewed.status.ok()) << renewed.status.error_message();
  EXPECT_EQ(renewed.svid->id(), first.svid->id());
}

TEST_F(IssuerProcessTest, APortInUseIsRefusedAlsoToAnotherIssuerOfThisUser) {
  IssuerConfig config{*x509::TrustDomain::Parse("example.org"), directory_.path() + "/other"};
  config.listen = {"127.0.0.1", issuer_->grpc_port()};
  config.admin = {"127.0.0.1", 0};
  config.socket = directory_.path() + "/other.sock";
  const auto second = IssuerProcess::Start(config, base::Clock::System());
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--listen"));
}

TEST_F(IssuerProcessTest, BadEntriesNameTheirField) {
  for (const auto& [id, field] : std::vector<std::pair<std::string, std::string>>{
           {"spiffe://example.org/postern/identity", "spiffe_id"},
           {"spiffe://other.org/web", "spiffe_id"},
           {"web", "spiffe_id"}}) {
    v1::CreateTokenRequest request;
    request.mutable_entry()->set_spiffe_id(id);
    v1::CreateTokenResponse response;
    grpc::ClientContext context;
    const grpc::Status status =
        v1::Admin::NewStub(unix_channel_->channel())->CreateToken(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << id;
    EXPECT_THAT(status.error_message(), HasSubstr(field)) << id;
  }
}

// An issuer whose time the test decides.
class IssuerClockTest : public IssuerProcessTest {
 protected:
  void SetUp() override {
    clock_ = &fake_clock_;
    StartIssuer();
  }
  // Its own certificates count too.
  uint64_t Issued() {
    grpc::ClientContext context;
    v1::IssuerStatus status;
    EXPECT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                    ->GetStatus(&context, v1::GetStatusRequest(), &status)
                    .ok());
    return status.certificates_issued();
  }
  void Restart() {
    unix_channel_.reset();
    issuer_.reset();
    StartIssuer();
  }
};

TEST_F(IssuerClockTest, AClockThatIsPutBackLeavesNoCertificateOfTheFuture) {
  fake_clock_.Advance(absl::Hours(240));
  Restart();  // its certificate begins nine days after the CA
  issuer_->Tick();
  const uint64_t before = Issued();
  fake_clock_.SetNow(fake_clock_.Now() - absl::Hours(216));
  issuer_->Tick();
  EXPECT_EQ(Issued(), before + 1);
  issuer_->Tick();
  EXPECT_EQ(Issued(), before + 1);
}

TEST_F(IssuerClockTest, AUnixPeersStreamEndsWhenACertificateWould) {
  v1::CreateEntryRequest request;
  *request.mutable_entry() = WebEntry();
  request.mutable_entry()->add_selectors(base::StrCat("unix:uid:", getuid()));
  grpc::ClientContext create_context;
  v1::Entry entry;
  ASSERT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                  ->CreateEntry(&create_context, request, &entry)
                  .ok());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto stream = v1::Mesh::NewStub(unix_channel_->channel())->Stream(&context);
  v1::MeshRequest hello;
  hello.mutable_hello()->set_proxy_version("test");
  stream->Write(hello);
  v1::MeshResponse response;
  ASSERT_TRUE(stream->Read(&response));
  fake_clock_.Advance(absl::Hours(1));
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// A proxy's mesh stream.
class MeshStreamTest : public IssuerProcessTest {
 protected:
  using Stream = grpc::ClientReaderWriter<v1::MeshRequest, v1::MeshResponse>;

  struct Proxy {
    std::optional<rpc::IssuerChannel> channel;
    grpc::ClientContext context;
    std::unique_ptr<Stream> stream;
  };

  std::unique_ptr<Proxy> Connect(std::shared_ptr<const x509::Svid> svid, uint32_t port) {
    auto proxy = std::make_unique<Proxy>();
    proxy->channel.emplace(TcpChannel(std::move(svid)));
    proxy->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    proxy->stream = v1::Mesh::NewStub(proxy->channel->channel())->Stream(&proxy->context);
    v1::MeshRequest request;
    request.mutable_hello()->set_proxy_version("test");
    request.mutable_hello()->add_serving()->set_port(port);
    proxy->stream->Write(request);
    return proxy;
  }

  std::shared_ptr<const x509::Svid> NewSvid(const v1::Entry& entry) {
    Certified certified = Certify(TcpChannel(), ByToken(NewToken(entry)));
    EXPECT_TRUE(certified.status.ok()) << certified.status.error_message();
    return certified.svid;
  }

  // Reads until a message of this kind comes.
  static v1::MeshResponse Await(Stream& stream, v1::MeshResponse::MessageCase kind) {
    v1::MeshResponse response;
    while (stream.Read(&response)) {
      if (response.message_case() == kind) {
        return response;
      }
    }
    ADD_FAILURE() << "the stream ended: " << stream.Finish().error_message();
    return {};
  }

  // Whether the number of connected proxies becomes this one, in reasonable time.
  bool AwaitConnected(uint32_t number) {
    const absl::Time limit = absl::Now() + absl::Seconds(10);
    while (absl::Now() < limit) {
      grpc::ClientContext context;
      v1::IssuerStatus status;
      EXPECT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                      ->GetStatus(&context, v1::GetStatusRequest(), &status)
                      .ok());
      if (status.connected_proxies() == number) {
        return true;
      }
    }
    return false;
  }

  static void Subscribe(Stream& stream, const std::string& ip, uint32_t port) {
    v1::MeshRequest request;
    v1::Address& address = *request.mutable_subscribe()->add_addresses();
    address.set_address(std::string(base::AsText(base::IpAddress::Parse(ip)->bytes())));
    address.set_port(port);
    stream.Write(request);
  }
};

TEST_F(MeshStreamTest, AnswersWhoIsBehindAnAddressAndWhenThatChanges) {
  const std::unique_ptr<Proxy> web = Connect(NewSvid(WebEntry()), 0);
  const v1::MeshResponse bundles = Await(*web->stream, v1::MeshResponse::kBundles);
  EXPECT_EQ(bundles.bundles().bundles(0).trust_domain(), "example.org");
  EXPECT_GT(bundles.issuer_time_ms(), 0);
  Subscribe(*web->stream, "198.18.0.7", 5432);
  v1::MeshResponse update = Await(*web->stream, v1::MeshResponse::kEndpoints);
  ASSERT_EQ(update.endpoints().answers_size(), 1);
  EXPECT_EQ(update.endpoints().answers(0).endpoints_size(), 0);

  v1::Entry db;
  db.set_spiffe_id("spiffe://example.org/db");
  db.add_allowed_addresses("198.18.0.7/32");
  NewToken(db);
  update = Await(*web->stream, v1::MeshResponse::kEndpoints);
  ASSERT_EQ(update.endpoints().answers(0).endpoints_size(), 1);
  EXPECT_EQ(update.endpoints().answers(0).endpoints(0).spiffe_ids(0), "spiffe://example.org/db");
}

TEST_F(MeshStreamTest, PolicyReachesTheProxyAndItsNackReachesTheOperator) {
  const std::unique_ptr<Proxy> web = Connect(NewSvid(WebEntry()), 0);
  Await(*web->stream, v1::MeshResponse::kPolicy);
  v1::PolicyDocuments policy;
  policy.add_documents()->set_name("p.yaml");
  policy.mutable_documents(0)->set_yaml("kind: AuthorizationPolicy\n");
  v1::PolicyDocuments put;
  grpc::ClientContext put_context;
  ASSERT_TRUE(
      v1::Admin::NewStub(unix_channel_->channel())->PutPolicy(&put_context, policy, &put).ok());
  const v1::MeshResponse update = Await(*web->stream, v1::MeshResponse::kPolicy);
  EXPECT_EQ(update.policy().version().sequence(), put.version().sequence());
  EXPECT_EQ(update.policy().documents(0).name(), "p.yaml");

  v1::MeshRequest nack;
  nack.mutable_ack()->set_kind(v1::KIND_POLICY);
  *nack.mutable_ack()->mutable_version() = update.policy().version();
  nack.mutable_ack()->set_error("p.yaml:1: spec: missing");
  web->stream->Write(nack);
  v1::IssuerStatus status;
  for (int i = 0;
       i < 1000 && (status.proxies_size() == 0 || status.proxies(0).last_error().empty()); ++i) {
    grpc::ClientContext context;
    status.Clear();
    ASSERT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                    ->GetStatus(&context, v1::GetStatusRequest(), &status)
                    .ok());
  }
  ASSERT_EQ(status.proxies_size(), 1);
  EXPECT_EQ(status.proxies(0).spiffe_id(), "spiffe://example.org/web");
  EXPECT_THAT(status.proxies(0).last_error(), HasSubstr("spec: missing"));
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_nacks_total 1"));
}

TEST_F(MeshStreamTest, AHelloThatLacksNothingIsAnsweredAtOnce) {
  const std::shared_ptr<const x509::Svid> svid = NewSvid(WebEntry());
  const std::unique_ptr<Proxy> first = Connect(svid, 0);
  const v1::MeshResponse bundles = Await(*first->stream, v1::MeshResponse::kBundles);
  v1::RevocationList revocations;
  ASSERT_TRUE(revocations.ParseFromString(
      Await(*first->stream, v1::MeshResponse::kRevocations).revocations().list()));
  const v1::MeshResponse policy = Await(*first->stream, v1::MeshResponse::kPolicy);

  rpc::IssuerChannel channel = TcpChannel(svid);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const auto stream = v1::Mesh::NewStub(channel.channel())->Stream(&context);
  v1::MeshRequest request;
  auto* held = request.mutable_hello()->add_held();
  held->set_kind(v1::KIND_BUNDLES);
  *held->mutable_version() = bundles.bundles().version();
  held = request.mutable_hello()->add_held();
  held->set_kind(v1::KIND_POLICY);
  *held->mutable_version() = policy.policy().version();
  held = request.mutable_hello()->add_held();
  held->set_kind(v1::KIND_REVOCATIONS);
  *held->mutable_version() = revocations.version();
  stream->Write(request);
  v1::MeshResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.message_case(), v1::MeshResponse::kKeepAlive);
  context.TryCancel();
  stream->Finish();
}

TEST_F(IssuerProcessTest, TakesAPolicyOfManyDocuments) {
  v1::PolicyDocuments policy;
  for (int i = 0; i < 200; ++i) {
    policy.add_documents()->set_name(base::StrCat("p", i, ".yaml"));
    policy.mutable_documents(i)->set_yaml(std::string(2000, '#'));
  }
  v1::PolicyDocuments put;
  grpc::ClientContext context;
  // A proxy's channel sends no message of this size; an operator's does.
  const auto channel = grpc::CreateChannel("unix:" + directory_.path() + "/identity.sock",
                                           grpc::InsecureChannelCredentials());
  const grpc::Status status = v1::Admin::NewStub(channel)->PutPolicy(&context, policy, &put);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(put.documents_size(), 200);
}

TEST_F(MeshStreamTest, AStrangerIsRefusedBeforeItHearsAnything) {
  const std::unique_ptr<Proxy> stranger = Connect(nullptr, 0);
  v1::MeshResponse response;
  EXPECT_FALSE(stranger->stream->Read(&response));
  EXPECT_EQ(stranger->stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_streams_refused_total 1"));
}

TEST_F(MeshStreamTest, ADeletedEntryGetsNoNewStream) {
  const std::shared_ptr<const x509::Svid> svid = NewSvid(WebEntry());
  v1::DeleteEntryRequest request;
  request.set_id(last_entry_.id());
  v1::DeleteEntryResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(
      v1::Admin::NewStub(unix_channel_->channel())->DeleteEntry(&context, request, &response).ok());
  const std::unique_ptr<Proxy> web = Connect(svid, 0);
  v1::MeshResponse message;
  EXPECT_FALSE(web->stream->Read(&message));
  EXPECT_FALSE(web->stream->Finish().ok());
}

// What is left of such a stream waits for the thread that authenticates, longer than gRPC keeps its
// side of it. Only a sanitizer sees every use of what has gone.
TEST_F(MeshStreamTest, ProxiesThatGoBeforeTheyAreKnownLeaveNothing) {
  const std::shared_ptr<const x509::Svid> svid = NewSvid(WebEntry());
  const rpc::IssuerChannel channel = TcpChannel(svid);
  const auto stub = v1::Mesh::NewStub(channel.channel());
  for (int round = 0; round < 6; ++round) {
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<Stream>> streams;
    for (int i = 0; i < 16; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      streams.push_back(stub->Stream(contexts.back().get()));
      v1::MeshRequest request;
      request.mutable_hello()->set_proxy_version("test");
      streams.back()->Write(request);
    }
    for (const auto& context : contexts) {
      context->TryCancel();
    }
    for (const auto& stream : streams) {
      EXPECT_FALSE(stream->Finish().ok());
    }
  }
  const std::unique_ptr<Proxy> web = Connect(svid, 0);  // behind all of them in the queue
  Await(*web->stream, v1::MeshResponse::kBundles);
  EXPECT_TRUE(AwaitConnected(1));
}

TEST_F(MeshStreamTest, TheIssuerStopsWithStreamsOpen) {
  const std::unique_ptr<Proxy> web = Connect(NewSvid(WebEntry()), 0);
  Await(*web->stream, v1::MeshResponse::kBundles);
  unix_channel_.reset();
  issuer_.reset();
  v1::MeshResponse message;
  while (web->stream->Read(&message)) {
  }
  EXPECT_FALSE(web->stream->Finish().ok());
}

TEST(IssuerConfigTest, NamesFlagAndMendOfAUsageError) {
  for (const auto& [arguments, flag] :
       std::vector<std::pair<std::vector<const char*>, std::string>>{
           {{"postern-identity"}, "--trust-domain"},
           {{"postern-identity", "--trust-domain", "Bad_TD!"}, "--trust-domain"},
           {{"postern-identity", "--trust-domain", "td"}, "--state-dir"},
           {{"postern-identity", "--trust-domain", "td", "--state-dir", "s", "--svid-ttl", "5s"},
            "--svid-ttl"},
           {{"postern-identity", "--trust-domain", "td", "--state-dir", "s", "--listen", "here"},
            "--listen: 'here' is no address: its port is missing; write IP:port or [v6]:port"},
           {{"postern-identity", "--trust-domain", "td", "--state-dir", "s", "--listen",
             "::1:15012"},
            "--listen: '::1:15012' is no address: without brackets it is ambiguous"},
           {{"postern-identity", "--trust-domain", "td", "--state-dir", "s", "--admin",
             "[127.0.0.1]:15014"},
            "--admin: '[127.0.0.1]:15014' is no address: what stands in brackets is no IPv6"},
           {{"postern-identity", "--trust-domain", "td", "--state-dir", "s", "--renewal-grace",
             "145h"},
            "--renewal-grace"},
           {{"postern-identity", "--trust-domain", "td", "--state-dir", "s", "--renewal-grace",
             "-1s"},
            "--renewal-grace"},
           {{"postern-identity", "--no-such-flag"}, "--no-such-flag"}}) {
    const ParseOutcome outcome =
        ParseIssuerConfig(static_cast<int>(arguments.size()), arguments.data());
    ASSERT_TRUE(outcome.exit.has_value()) << flag;
    EXPECT_EQ(outcome.exit->exit_code, 2);
    EXPECT_THAT(outcome.exit->text, HasSubstr(flag));
  }
}

TEST(IssuerConfigTest, TheGraceIsALifetimeUnlessATimeIsGiven) {
  const auto grace = [](std::vector<const char*> more) {
    std::vector<const char*> arguments = {"postern-identity", "--trust-domain", "td", "--state-dir",
                                          "s"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return ParseIssuerConfig(static_cast<int>(arguments.size()), arguments.data())
        .config->renewal_grace;
  };
  EXPECT_EQ(grace({}), std::nullopt);
  EXPECT_EQ(grace({"--renewal-grace", "lifetime"}), std::nullopt);
  EXPECT_EQ(grace({"--renewal-grace", "0"}), absl::ZeroDuration());
  EXPECT_EQ(grace({"--renewal-grace", "144h"}), absl::Hours(144));
}

TEST(IssuerConfigTest, ReadsFederationsFromFlagsAndFromLinesOfTheEnvironment) {
  const std::string b = "trust-domain=b.test,url=https://b.test/,profile=https_web";
  const std::string c = "trust-domain=c.test,url=https://c.test/,profile=https_web";
  const char* arguments[] = {"postern-identity",
                             "--trust-domain",
                             "td",
                             "--state-dir",
                             "s",
                             "--federate",
                             b.c_str(),
                             "--federate",
                             c.c_str(),
                             "--bundle-endpoint",
                             "[::]:8443",
                             "--bundle-refresh-hint",
                             "90s"};
  const ParseOutcome flags = ParseIssuerConfig(13, arguments);
  ASSERT_TRUE(flags.config.has_value()) << flags.exit->text;
  ASSERT_EQ(flags.config->federate.size(), 2U);
  EXPECT_EQ(flags.config->federate[1].trust_domain.name(), "c.test");
  ASSERT_TRUE(flags.config->bundle_endpoint.has_value());
  EXPECT_EQ(flags.config->bundle_endpoint->host, "::");
  EXPECT_EQ(flags.config->bundle_endpoint->port, 8443);
  EXPECT_EQ(flags.config->bundle_refresh_hint, absl::Seconds(90));

  setenv("POSTERN_FEDERATE", (b + "\n" + c + "\n").c_str(), 1);
  const ParseOutcome environment = ParseIssuerConfig(5, arguments);
  const ParseOutcome both = ParseIssuerConfig(7, arguments);
  unsetenv("POSTERN_FEDERATE");
  ASSERT_TRUE(environment.config.has_value()) << environment.exit->text;
  EXPECT_EQ(environment.config->federate.size(), 2U);
  EXPECT_FALSE(environment.config->bundle_endpoint.has_value());
  ASSERT_TRUE(both.config.has_value()) << both.exit->text;
  EXPECT_EQ(both.config->federate.size(), 1U) << "the flag wins";
}

TEST(IssuerConfigTest, NamesFlagAndMendOfAWrongFederation) {
  const std::vector<std::pair<std::vector<const char*>, std::string>> rows = {
      {{"--federate", "b.test"}, "--federate: "},
      {{"--federate", "trust-domain=b.test,url=http://b.test,profile=https_web"},
       "--federate: url: "},
      {{"--bundle-endpoint", "here"}, "--bundle-endpoint: "},
      {{"--bundle-endpoint", "127.0.0.1:1", "--bundle-endpoint-cert", "c"}, "give both"},
      {{"--bundle-endpoint-cert", "c", "--bundle-endpoint-key", "k"}, "and --bundle-endpoint"},
      {{"--bundle-refresh-hint", "1s"}, "--bundle-refresh-hint: "},
  };
  for (const auto& [more, expected] : rows) {
    std::vector<const char*> arguments = {"postern-identity", "--trust-domain", "td", "--state-dir",
                                          "s"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ParseOutcome outcome =
        ParseIssuerConfig(static_cast<int>(arguments.size()), arguments.data());
    ASSERT_TRUE(outcome.exit.has_value()) << expected;
    EXPECT_EQ(outcome.exit->exit_code, 2);
    EXPECT_THAT(outcome.exit->text, HasSubstr(expected));
  }
}

TEST(IssuerConfigTest, AFlagWinsOverTheEnvironmentAndThatOverTheFile) {
  testing::TempDir directory;
  const std::string file = directory.path() + "/identity.toml";
  FILE* out = fopen(file.c_str(), "w");
  fputs("trust-domain = \"file.org\"\nstate-dir = \"/file\"\nsvid-ttl = \"20m\"\n", out);
  fclose(out);
  setenv("POSTERN_STATE_DIR", "/environment", 1);
  setenv("POSTERN_SVID_TTL", "30m", 1);
  const char* arguments[] = {"postern-identity", "--config", file.c_str(), "--svid-ttl", "40m"};
  const ParseOutcome outcome = ParseIssuerConfig(5, arguments);
  unsetenv("POSTERN_STATE_DIR");
  unsetenv("POSTERN_SVID_TTL");
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  EXPECT_EQ(outcome.config->trust_domain.name(), "file.org");
  EXPECT_EQ(outcome.config->state_dir, "/environment");
  EXPECT_EQ(outcome.config->svid_ttl, absl::Minutes(40));
}

}  // namespace
}  // namespace postern::service
