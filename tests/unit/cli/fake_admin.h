// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "postern/v1/admin.grpc.pb.h"

namespace postern::cli {

// An issuer's administration on a unix socket in a directory of its own: keeps entries, tokens and
// policy in memory as the real one does in its store.
class FakeAdmin final : public v1::Admin::Service {
 public:
  FakeAdmin() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pstn-cli-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket(), grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeAdmin() override {
    if (server_)
      server_->Shutdown();
    std::filesystem::remove_all(directory_);
  }

  std::string socket() const { return directory_ + "/identity.sock"; }
  const std::string& directory() const { return directory_; }

  // What the commands asked for.
  v1::CreateTokenRequest last_token;
  std::vector<v1::Entry> entries;
  v1::PolicyDocuments policy;
  v1::BundleSet bundles;
  v1::BundleList bundle_list;
  v1::RefreshBundlesRequest last_refresh;
  v1::IssuerStatus status;
  v1::RevocationList revocations;
  v1::Revocation last_revocation;
  uint32_t followed = 2;                  // of two connected proxies
  std::vector<v1::CaStatus> ca_statuses;  // GetCaStatus gives them in turn, the last for ever
  std::vector<v1::RotateCaRequest> ca_steps;
  std::string refuse;  // not empty: every call fails with it

 private:
  grpc::Status Verdict() const {
    if (refuse.empty())
      return grpc::Status::OK;
    return {grpc::StatusCode::PERMISSION_DENIED, refuse};
  }

  grpc::Status CreateEntry(grpc::ServerContext*, const v1::CreateEntryRequest* request,
                           v1::Entry* entry) override {
    *entry = request->entry();
    entry->set_id("entry-" + std::to_string(entries.size() + 1));
    entry->set_created_at(1767225600);
    if (refuse.empty())
      entries.push_back(*entry);
    return Verdict();
  }
  grpc::Status ListEntries(grpc::ServerContext*, const v1::ListEntriesRequest* request,
                           v1::ListEntriesResponse* response) override {
    for (const v1::Entry& entry : entries) {
      const std::string& wanted = request->spiffe_id();
      if (wanted.empty() || wanted == entry.spiffe_id())
        *response->add_entries() = entry;
    }
    return Verdict();
  }
  grpc::Status DeleteEntry(grpc::ServerContext*, const v1::DeleteEntryRequest* request,
                           v1::DeleteEntryResponse*) override {
    const size_t before = entries.size();
    std::erase_if(entries, [request](const v1::Entry& e) { return e.id() == request->id(); });
    if (entries.size() < before)
      return Verdict();
    return {grpc::StatusCode::NOT_FOUND, "no entry " + request->id()};
  }
  grpc::Status CreateToken(grpc::ServerContext*, const v1::CreateTokenRequest* request,
                           v1::CreateTokenResponse* response) override {
    last_token = *request;
    response->set_token("secret-token");
    *response->mutable_entry() = request->entry();
    response->mutable_entry()->set_id("entry-7");
    response->set_expires_at(1767226200);
    return Verdict();
  }
  grpc::Status GetBundles(grpc::ServerContext*, const v1::GetBundlesRequest*,
                          v1::BundleSet* response) override {
    *response = bundles;
    return Verdict();
  }
  grpc::Status ListBundles(grpc::ServerContext*, const v1::ListBundlesRequest*,
                           v1::BundleList* response) override {
    *response = bundle_list;
    return Verdict();
  }
  grpc::Status RefreshBundles(grpc::ServerContext*, const v1::RefreshBundlesRequest* request,
                              v1::BundleList* response) override {
    last_refresh = *request;
    *response = bundle_list;
    return Verdict();
  }
  grpc::Status PutPolicy(grpc::ServerContext*, const v1::PolicyDocuments* request,
                         v1::PolicyDocuments* response) override {
    if (refuse.empty())
      policy = *request;
    policy.mutable_version()->set_sequence(policy.version().sequence() + 1);
    *response = policy;
    return Verdict();
  }
  grpc::Status GetPolicy(grpc::ServerContext*, const v1::GetPolicyRequest*,
                         v1::PolicyDocuments* response) override {
    *response = policy;
    return Verdict();
  }
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::IssuerStatus* response) override {
    *response = status;
    return Verdict();
  }

  grpc::Status RotateCa(grpc::ServerContext*, const v1::RotateCaRequest* request,
                        v1::CaStatus* response) override {
    ca_steps.push_back(*request);
    *response = ca_statuses.front();
    return Verdict();
  }
  grpc::Status GetCaStatus(grpc::ServerContext*, const v1::GetCaStatusRequest*,
                           v1::CaStatus* response) override {
    *response = ca_statuses.front();
    if (ca_statuses.size() > 1)
      ca_statuses.erase(ca_statuses.begin());
    return Verdict();
  }
  grpc::Status Revoke(grpc::ServerContext*, const v1::RevokeRequest* request,
                      v1::RevokeResponse* response) override {
    last_revocation = request->revocation();
    last_revocation.set_sequence(17);
    last_revocation.set_revoked_at(1767225600);
    *revocations.add_revocations() = last_revocation;
    response->mutable_version()->set_epoch(5);
    response->mutable_version()->set_sequence(17);
    response->set_connected_proxies(2);
    response->set_acknowledged(followed);
    response->set_certificates(request->revocation().has_spiffe_id() ? 3 : 0);
    return Verdict();
  }
  grpc::Status LiftRevocation(grpc::ServerContext*, const v1::LiftRevocationRequest* request,
                              v1::RevokeResponse* response) override {
    if (request->sequence() != 17) {
      return {grpc::StatusCode::NOT_FOUND, "nothing is revoked under this number"};
    }
    revocations.clear_revocations();
    response->set_connected_proxies(2);
    response->set_acknowledged(2);
    return Verdict();
  }
  grpc::Status ListRevocations(grpc::ServerContext*, const v1::ListRevocationsRequest*,
                               v1::RevocationList* response) override {
    *response = revocations;
    return Verdict();
  }

  std::string directory_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace postern::cli
