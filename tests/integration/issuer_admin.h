// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/rpc/issuer_channel.h"
#include "common/x509/certificate.h"
#include "postern/v1/admin.grpc.pb.h"

namespace postern::testing {

// The administration of an issuer of the test's, over its unix socket: what `postern` would ask
// for. A call that fails fails the test. Any thread.
class IssuerAdmin {
 public:
  explicit IssuerAdmin(const std::string& socket) : channel_(Open(socket)) {}

  v1::Admin::Stub& stub() { return *stub_; }

  // A token for an entry of its own with `spiffe_id`, and `address` where one is given.
  std::string CreateToken(const std::string& spiffe_id, const std::string& address = "") {
    v1::CreateTokenRequest request;
    request.mutable_entry()->set_spiffe_id(spiffe_id);
    if (!address.empty()) {
      request.mutable_entry()->add_allowed_addresses(address);
    }
    v1::CreateTokenResponse response;
    Expect([&](grpc::ClientContext* context) {
      return stub_->CreateToken(context, request, &response);
    });
    return response.token();
  }
  v1::BundleSet Bundles() {
    v1::BundleSet response;
    Expect([&](grpc::ClientContext* context) {
      return stub_->GetBundles(context, v1::GetBundlesRequest(), &response);
    });
    return response;
  }
  // The first root of the issuer's own trust domain.
  x509::X509Ptr Root() {
    return x509::CertificateFromDer(base::AsBytes(Bundles().bundles(0).root_der(0))).value();
  }
  // The SHA-256 of that root, as IssuedIdentity's `issuer_pin` has it.
  std::string RootPin() {
    return std::string(base::AsText(x509::Sha256OfCertificate(Root().get())));
  }
  // `yaml` is all the policy from now on.
  void PutPolicy(const std::string& yaml) {
    v1::PolicyDocuments request;
    request.add_documents()->set_name("p.yaml");
    request.mutable_documents(0)->set_yaml(yaml);
    v1::PolicyDocuments response;
    Expect([&](grpc::ClientContext* context) {
      return stub_->PutPolicy(context, request, &response);
    });
  }

 private:
  static rpc::IssuerChannel Open(const std::string& socket) {
    rpc::IssuerChannelOptions options;
    options.target = "unix:" + socket;
    return rpc::IssuerChannel::Create(options).value();
  }
  template <typename Call>
  static void Expect(const Call& call) {
    grpc::ClientContext context;
    const grpc::Status status = call(&context);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  const rpc::IssuerChannel channel_;
  const std::unique_ptr<v1::Admin::Stub> stub_ = v1::Admin::NewStub(channel_.channel());
};

}  // namespace postern::testing
