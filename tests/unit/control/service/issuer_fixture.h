// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/rpc/issuer_channel.h"
#include "common/x509/certificate.h"
#include "common/x509/csr.h"
#include "common/x509/key.h"
#include "control/service/connection_ledger.h"
#include "control/service/issuer_process.h"
#include "postern/v1/admin.grpc.pb.h"
#include "postern/v1/identity.grpc.pb.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::service {

// A whole issuer on ports of its own, and the calls that a proxy and an operator make.
class IssuerProcessTest : public ::testing::Test {
 protected:
  void SetUp() override { StartIssuer(); }

  void StartIssuer() {
    IssuerConfig config{*x509::TrustDomain::Parse("example.org"), directory_.path() + "/state"};
    config.listen = {"127.0.0.1", 0};
    config.admin = {"127.0.0.1", 0};
    config.socket = directory_.path() + "/identity.sock";
    config.ca_dir = ca_dir_;
    config.certify_rate = certify_rate_;
    config.renewal_grace = renewal_grace_;
    config.max_connections = limits_.total;
    config.max_connections_per_source = limits_.per_source;
    auto started = IssuerProcess::Start(config, *clock_);
    ASSERT_TRUE(started.ok()) << started.status();
    issuer_ = *std::move(started);
    unix_channel_.emplace(*rpc::IssuerChannel::Create(
        {.target = "unix:" + config.socket, .trust = std::nullopt, .client = nullptr}));
  }

  v1::Entry WebEntry() const {
    v1::Entry entry;
    entry.set_spiffe_id("spiffe://example.org/web");
    return entry;
  }

  std::string NewToken(const v1::Entry& entry) {
    v1::CreateTokenRequest request;
    *request.mutable_entry() = entry;
    v1::CreateTokenResponse response;
    grpc::ClientContext context;
    const grpc::Status status =
        v1::Admin::NewStub(unix_channel_->channel())->CreateToken(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    last_entry_ = response.entry();
    return response.token();
  }

  std::shared_ptr<const x509::TrustBundleSet> Bundles() {
    v1::BundleSet response;
    grpc::ClientContext context;
    EXPECT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                    ->GetBundles(&context, v1::GetBundlesRequest(), &response)
                    .ok());
    std::vector<x509::X509Ptr> roots;
    for (const std::string& der : response.bundles(0).root_der()) {
      roots.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
    }
    std::vector<x509::TrustBundle> bundles;
    bundles.push_back(
        *x509::TrustBundle::Create(*x509::TrustDomain::Parse("example.org"), std::move(roots)));
    return std::make_shared<x509::TrustBundleSet>(std::move(bundles));
  }

  rpc::IssuerChannel TcpChannel(std::shared_ptr<const x509::Svid> client = nullptr) {
    rpc::IssuerChannelOptions options;
    options.target = base::StrCat("127.0.0.1:", issuer_->grpc_port());
    options.trust = rpc::IssuerTrust{*x509::TrustDomain::Parse("example.org"), Bundles(), {}};
    options.client = std::move(client);
    options.clock = clock_;
    return *rpc::IssuerChannel::Create(options);
  }

  // A certificate for a fresh key, or the status that refused it.
  struct Certified {
    grpc::Status status;
    v1::CertifyResponse response;
    std::shared_ptr<const x509::Svid> svid;
    std::string retry_after;
  };
  static Certified Certify(const rpc::IssuerChannel& channel, v1::CertifyRequest request,
                           std::optional<x509::SpiffeId> csr_id = std::nullopt) {
    Certified certified;
    x509::PkeyPtr key = *x509::GenerateP256Key();
    request.set_csr_der(*x509::CreateCsr(key.get(), csr_id));
    grpc::ClientContext context;
    certified.status =
        v1::Identity::NewStub(channel.channel())->Certify(&context, request, &certified.response);
    const auto& trailers = context.GetServerTrailingMetadata();
    if (const auto found = trailers.find("postern-retry-after-ms"); found != trailers.end()) {
      certified.retry_after = std::string(found->second.data(), found->second.size());
    }
    if (certified.status.ok()) {
      std::vector<x509::X509Ptr> chain;
      for (const std::string& der : certified.response.chain_der()) {
        chain.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
      }
      certified.svid =
          std::make_shared<x509::Svid>(*x509::Svid::Create(std::move(chain), std::move(key)));
    }
    return certified;
  }
  static v1::CertifyRequest ByToken(const std::string& token) {
    v1::CertifyRequest request;
    request.mutable_join_token()->set_token(token);
    return request;
  }
  static v1::CertifyRequest ByCertificate() {
    v1::CertifyRequest request;
    request.mutable_existing_certificate();
    return request;
  }

  fakes::FakeClock fake_clock_;  // used where `clock_` says so; the issuer goes before it
  const base::Clock* clock_ = &base::Clock::System();
  std::string ca_dir_;
  uint32_t certify_rate_ = 500;
  std::optional<absl::Duration> renewal_grace_;
  ConnectionLimits limits_{.total = 24000, .per_source = 2000};
  testing::TempDir directory_;
  std::unique_ptr<IssuerProcess> issuer_;
  std::optional<rpc::IssuerChannel> unix_channel_;
  v1::Entry last_entry_;
};

}  // namespace postern::service
