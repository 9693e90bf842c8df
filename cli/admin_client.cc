// SPDX-License-Identifier: Apache-2.0
#include "cli/admin_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "cli/unix_client.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "postern/v1/admin.grpc.pb.h"

namespace postern::cli {
namespace {

constexpr int kMaxAnswerBytes = 64 << 20;  // tens of thousands of entries

constexpr std::chrono::seconds kDeadline{10};
constexpr std::chrono::seconds kRefreshDeadline{60};

constexpr UnixServer kIssuer = {
    .flag = "--socket",
    .missing = "is postern-identity running on this machine, and with that --socket?",
    .denied = "run as root, as the issuer's user or as a member of the socket's group",
    .gone = "start postern-identity"};

absl::Status FromGrpc(const grpc::Status& status, std::chrono::seconds deadline) {
  if (status.ok())
    return absl::OkStatus();
  const std::string text = base::LineSafe(status.error_message(), 1024);
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::DeadlineExceededError(
        base::StrCat("the issuer did not answer within ", deadline.count(), " s"));
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      base::StrCat("the issuer refused: ", text));
}

}  // namespace

struct AdminClient::Impl {
  std::unique_ptr<v1::Admin::Stub> stub;

  // One unary call: `method` is a member of the stub.
  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> Call(Method method, const Request& request,
                                std::chrono::seconds deadline = kDeadline) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    Response response;
    const grpc::Status status = ((*stub).*method)(&context, request, &response);
    if (!status.ok())
      return FromGrpc(status, deadline);
    return response;
  }
};

AdminClient::AdminClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AdminClient::~AdminClient() = default;

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Connect(const std::string& socket_path) {
  // gRPC says "failed to connect" whatever was wrong; the system says why.
  if (const auto tried = ConnectUnix(kIssuer, socket_path); !tried.ok())
    return tried.status();
  auto impl = std::make_unique<Impl>();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  impl->stub = v1::Admin::NewStub(grpc::CreateCustomChannel(
      base::StrCat("unix:", socket_path), grpc::InsecureChannelCredentials(), arguments));
  return std::unique_ptr<AdminClient>(new AdminClient(std::move(impl)));
}

absl::StatusOr<v1::Entry> AdminClient::CreateEntry(const v1::CreateEntryRequest& request) {
  return impl_->Call<v1::Entry>(&v1::Admin::Stub::CreateEntry, request);
}
absl::StatusOr<v1::ListEntriesResponse> AdminClient::ListEntries(
    const v1::ListEntriesRequest& request) {
  return impl_->Call<v1::ListEntriesResponse>(&v1::Admin::Stub::ListEntries, request);
}
absl::StatusOr<v1::DeleteEntryResponse> AdminClient::DeleteEntry(
    const v1::DeleteEntryRequest& request) {
  return impl_->Call<v1::DeleteEntryResponse>(&v1::Admin::Stub::DeleteEntry, request);
}
absl::StatusOr<v1::CreateTokenResponse> AdminClient::CreateToken(
    const v1::CreateTokenRequest& request) {
  return impl_->Call<v1::CreateTokenResponse>(&v1::Admin::Stub::CreateToken, request);
}
absl::StatusOr<v1::BundleSet> AdminClient::GetBundles() {
  return impl_->Call<v1::BundleSet>(&v1::Admin::Stub::GetBundles, v1::GetBundlesRequest());
}
absl::StatusOr<v1::BundleList> AdminClient::ListBundles() {
  return impl_->Call<v1::BundleList>(&v1::Admin::Stub::ListBundles, v1::ListBundlesRequest());
}
absl::StatusOr<v1::BundleList> AdminClient::RefreshBundles(
    const v1::RefreshBundlesRequest& request) {
  return impl_->Call<v1::BundleList>(&v1::Admin::Stub::RefreshBundles, request, kRefreshDeadline);
}
absl::StatusOr<v1::PolicyDocuments> AdminClient::PutPolicy(const v1::PolicyDocuments& documents) {
  return impl_->Call<v1::PolicyDocuments>(&v1::Admin::Stub::PutPolicy, documents);
}
absl::StatusOr<v1::PolicyDocuments> AdminClient::GetPolicy() {
  return impl_->Call<v1::PolicyDocuments>(&v1::Admin::Stub::GetPolicy, v1::GetPolicyRequest());
}
absl::StatusOr<v1::IssuerStatus> AdminClient::GetStatus() {
  return impl_->Call<v1::IssuerStatus>(&v1::Admin::Stub::GetStatus, v1::GetStatusRequest());
}
absl::StatusOr<v1::CaStatus> AdminClient::RotateCa(const v1::RotateCaRequest& request) {
  return impl_->Call<v1::CaStatus>(&v1::Admin::Stub::RotateCa, request);
}
absl::StatusOr<v1::CaStatus> AdminClient::GetCaStatus() {
  return impl_->Call<v1::CaStatus>(&v1::Admin::Stub::GetCaStatus, v1::GetCaStatusRequest());
}
absl::StatusOr<v1::RevokeResponse> AdminClient::Revoke(const v1::RevokeRequest& request) {
  return impl_->Call<v1::RevokeResponse>(&v1::Admin::Stub::Revoke, request);
}
absl::StatusOr<v1::RevokeResponse> AdminClient::LiftRevocation(
    const v1::LiftRevocationRequest& request) {
  return impl_->Call<v1::RevokeResponse>(&v1::Admin::Stub::LiftRevocation, request);
}
absl::StatusOr<v1::RevocationList> AdminClient::ListRevocations() {
  return impl_->Call<v1::RevocationList>(&v1::Admin::Stub::ListRevocations,
                                         v1::ListRevocationsRequest());
}

}  // namespace postern::cli
