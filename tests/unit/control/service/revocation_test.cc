// SPDX-License-Identifier: Apache-2.0
// Revocation at the whole issuer: the operator's verbs, renewals, and mesh streams.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/x509/ca_statement.h"
#include "common/x509/certificate.h"
#include "common/x509/revocation_set.h"
#include "postern/v1/admin.grpc.pb.h"
#include "postern/v1/mesh.grpc.pb.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using ::testing::HasSubstr;

class RevocationTest : public IssuerProcessTest {
 protected:
  using Stream = grpc::ClientReaderWriter<v1::MeshRequest, v1::MeshResponse>;
  struct Proxy {
    std::optional<rpc::IssuerChannel> channel;
    grpc::ClientContext context;
    std::unique_ptr<Stream> stream;
  };

  std::unique_ptr<v1::Admin::Stub> Admin() { return v1::Admin::NewStub(unix_channel_->channel()); }
  std::shared_ptr<const x509::Svid> NewSvid() {
    Certified certified = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
    EXPECT_TRUE(certified.status.ok()) << certified.status.error_message();
    return certified.svid;
  }
  grpc::Status Revoke(const v1::Revocation& revocation, v1::RevokeResponse* response) {
    v1::RevokeRequest request;
    *request.mutable_revocation() = revocation;
    request.mutable_revocation()->set_reason("key stolen");
    grpc::ClientContext context;
    return Admin()->Revoke(&context, request, response);
  }
  v1::RevokeResponse RevokeId(const std::string& id) {
    v1::Revocation revocation;
    revocation.set_spiffe_id(id);
    v1::RevokeResponse response;
    const grpc::Status status = Revoke(revocation, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::RevocationList List() {
    v1::RevocationList list;
    grpc::ClientContext context;
    EXPECT_TRUE(Admin()->ListRevocations(&context, v1::ListRevocationsRequest(), &list).ok());
    return list;
  }
  std::unique_ptr<Proxy> Connect(std::shared_ptr<const x509::Svid> svid,
                                 const v1::Version* held = nullptr) {
    auto proxy = std::make_unique<Proxy>();
    proxy->channel.emplace(TcpChannel(std::move(svid)));
    proxy->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    proxy->stream = v1::Mesh::NewStub(proxy->channel->channel())->Stream(&proxy->context);
    v1::MeshRequest request;
    request.mutable_hello()->set_proxy_version("test");
    if (held != nullptr) {
      auto* holding = request.mutable_hello()->add_held();
      holding->set_kind(v1::KIND_REVOCATIONS);
      *holding->mutable_version() = *held;
    }
    proxy->stream->Write(request);
    return proxy;
  }
  static v1::SignedRevocations Await(Stream& stream) {
    v1::MeshResponse response;
    while (stream.Read(&response)) {
      if (response.has_revocations()) {
        return response.revocations();
      }
    }
    ADD_FAILURE() << "the stream ended: " << stream.Finish().error_message();
    return {};
  }
  static v1::RevocationList ListOf(const v1::SignedRevocations& wire) {
    v1::RevocationList list;
    EXPECT_TRUE(list.ParseFromString(wire.list()));
    return list;
  }
};

TEST_F(RevocationTest, TheListReachesAProxySignedByTheCa) {
  const std::unique_ptr<Proxy> web = Connect(NewSvid());
  const v1::SignedRevocations empty = Await(*web->stream);
  EXPECT_EQ(ListOf(empty).revocations_size(), 0);
  EXPECT_EQ(ListOf(empty).trust_domain(), "example.org");
  std::vector<x509::X509Ptr> chain;
  for (const std::string& der : empty.signer_chain_der()) {
    chain.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
  }
  const auto path = x509::VerifyCaStatement(base::AsBytes(x509::RevocationStatement(empty.list())),
                                            base::AsBytes(empty.signature()), chain,
                                            *Bundles()->Find("example.org"), absl::Now());
  EXPECT_TRUE(path.ok()) << path.status();

  RevokeId("spiffe://example.org/other");
  const v1::RevocationList next = ListOf(Await(*web->stream));
  ASSERT_EQ(next.revocations_size(), 1);
  EXPECT_EQ(next.revocations(0).spiffe_id(), "spiffe://example.org/other");
  EXPECT_EQ(next.revocations(0).reason(), "key stolen");
  EXPECT_GT(next.version().sequence(), ListOf(empty).version().sequence());
}

TEST_F(RevocationTest, TheCommandReturnsWhenTheProxiesHaveFollowed) {
  const std::unique_ptr<Proxy> web = Connect(NewSvid());
  Await(*web->stream);
  std::thread proxy([&web] {
    v1::MeshRequest ack;
    ack.mutable_ack()->set_kind(v1::KIND_REVOCATIONS);
    *ack.mutable_ack()->mutable_version() = ListOf(Await(*web->stream)).version();
    web->stream->Write(ack);
  });
  const v1::RevokeResponse made = RevokeId("spiffe://example.org/other");
  proxy.join();
  EXPECT_EQ(made.connected_proxies(), 1U);
  EXPECT_EQ(made.acknowledged(), 1U);
  EXPECT_EQ(made.certificates(), 0U);
}

TEST_F(RevocationTest, AProxyThatComesBackIsSentOnlyWhatItLacks) {
  RevokeId("spiffe://example.org/other");
  const std::shared_ptr<const x509::Svid> svid = NewSvid();
  const v1::RevocationList held = ListOf(Await(*Connect(svid)->stream));
  const std::unique_ptr<Proxy> again = Connect(svid, &held.version());
  RevokeId("spiffe://example.org/third");
  const v1::RevocationList next = ListOf(Await(*again->stream));
  EXPECT_EQ(next.revocations_size(), 2) << "the first message is the new one";
}

TEST_F(RevocationTest, ARevokedWorkloadLosesItsStreamAndItsRenewal) {
  const std::shared_ptr<const x509::Svid> svid = NewSvid();
  const std::unique_ptr<Proxy> web = Connect(svid);
  Await(*web->stream);
  const v1::RevokeResponse made = RevokeId("spiffe://example.org/web");
  EXPECT_EQ(made.certificates(), 1U);
  v1::MeshResponse response;
  while (web->stream->Read(&response)) {
  }
  const grpc::Status ended = web->stream->Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(ended.error_message(), HasSubstr("key stolen"));

  const Certified renewed = Certify(TcpChannel(svid), ByCertificate());
  EXPECT_EQ(renewed.status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(renewed.status.error_message(), HasSubstr("key stolen"));
  const std::unique_ptr<Proxy> again = Connect(svid);
  EXPECT_FALSE(again->stream->Read(&response));
  EXPECT_EQ(again->stream->Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_refused_total{reason=\"revoked\"} 1"));
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_streams_revoked_total 1"));
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_revocations{kind=\"spiffe_id\"} 1"));

  v1::LiftRevocationRequest lift;
  lift.set_sequence(made.version().sequence());
  v1::RevokeResponse lifted;
  grpc::ClientContext context;
  ASSERT_TRUE(Admin()->LiftRevocation(&context, lift, &lifted).ok());
  EXPECT_TRUE(Certify(TcpChannel(svid), ByCertificate()).status.ok());
  EXPECT_EQ(List().revocations_size(), 0);
}

TEST_F(RevocationTest, ADeletedEntryRevokesItsCertificatesAndEndsItsStream) {
  const std::shared_ptr<const x509::Svid> svid = NewSvid();
  const std::unique_ptr<Proxy> web = Connect(svid);
  Await(*web->stream);
  v1::DeleteEntryRequest request;
  request.set_id(last_entry_.id());
  v1::DeleteEntryResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(Admin()->DeleteEntry(&context, request, &response).ok());
  v1::MeshResponse message;
  while (web->stream->Read(&message)) {
  }
  EXPECT_FALSE(web->stream->Finish().ok());
  const v1::RevocationList list = List();
  ASSERT_EQ(list.revocations_size(), 1);
  EXPECT_EQ(base::ToHex(base::AsBytes(list.revocations(0).serial())), svid->serial());
  EXPECT_THAT(list.revocations(0).reason(), HasSubstr(last_entry_.id()));
  EXPECT_GT(list.revocations(0).forget_at(), absl::ToUnixSeconds(svid->not_after()));
}

TEST_F(RevocationTest, IsThereAgainAfterARestart) {
  const std::shared_ptr<const x509::Svid> svid = NewSvid();
  RevokeId("spiffe://example.org/web");
  const v1::Version before = List().version();
  issuer_.reset();
  StartIssuer();
  EXPECT_EQ(List().version().sequence(), before.sequence());
  EXPECT_EQ(Certify(TcpChannel(svid), ByCertificate()).status.error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(RevocationTest, WhatCannotBeRevokedIsRefusedWithItsReason) {
  v1::RevokeResponse response;
  EXPECT_EQ(Revoke(v1::Revocation(), &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::Revocation ca;
  const auto root =
      x509::Sha256OfCertificate(Bundles()->Find("example.org")->roots().front().get());
  ca.set_issuer_sha256(std::string(base::AsText(root)));
  EXPECT_EQ(Revoke(ca, &response).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::LiftRevocationRequest lift;
  lift.set_sequence(4711);
  grpc::ClientContext context;
  EXPECT_EQ(Admin()->LiftRevocation(&context, lift, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace postern::service
