// SPDX-License-Identifier: Apache-2.0
#include "control/service/admin_service.h"

#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "common/base/strings.h"
#include "control/service/caller.h"
#include "control/service/federation.h"
#include "control/service/messages.h"
#include "control/service/revocation_verbs.h"
#include "control/service/rotation_messages.h"
#include "postern/v1/admin.grpc.pb.h"

namespace postern::service {
namespace {

constexpr size_t kMaxPolicyDocuments = 1000;

class AdminService final : public v1::Admin::Service {
 public:
  AdminService(const ServiceParts& parts, issue::Registry& registry)
      : parts_(parts), registry_(registry) {}

  grpc::Status CreateEntry(grpc::ServerContext* context, const v1::CreateEntryRequest* request,
                           v1::Entry* response) override {
    return ToGrpc(DoCreateEntry(*context, *request, *response));
  }
  grpc::Status ListEntries(grpc::ServerContext* context, const v1::ListEntriesRequest* request,
                           v1::ListEntriesResponse* response) override {
    return ToGrpc(DoListEntries(*context, *request, *response));
  }
  grpc::Status DeleteEntry(grpc::ServerContext* context, const v1::DeleteEntryRequest* request,
                           v1::DeleteEntryResponse* /*response*/) override {
    return ToGrpc(DoDeleteEntry(*context, *request));
  }
  grpc::Status CreateToken(grpc::ServerContext* context, const v1::CreateTokenRequest* request,
                           v1::CreateTokenResponse* response) override {
    return ToGrpc(DoCreateToken(*context, *request, *response));
  }
  grpc::Status GetBundles(grpc::ServerContext* context, const v1::GetBundlesRequest* /*request*/,
                          v1::BundleSet* response) override {
    const absl::Status allowed = CheckOperator(*context, "bundle show");
    if (allowed.ok()) {
      *response = ToMessage(*parts_.mesh->bundles());
    }
    return ToGrpc(allowed);
  }
  grpc::Status PutPolicy(grpc::ServerContext* context, const v1::PolicyDocuments* request,
                         v1::PolicyDocuments* response) override {
    return ToGrpc(DoPutPolicy(*context, *request, *response));
  }
  grpc::Status GetPolicy(grpc::ServerContext* context, const v1::GetPolicyRequest* /*request*/,
                         v1::PolicyDocuments* response) override {
    const absl::Status allowed = CheckOperator(*context, "policy show");
    if (allowed.ok()) {
      *response = ToMessage(*parts_.mesh->policy());
    }
    return ToGrpc(allowed);
  }
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* /*request*/,
                         v1::IssuerStatus* response) override {
    return ToGrpc(DoGetStatus(*context, *response));
  }
  grpc::Status RotateCa(grpc::ServerContext* context, const v1::RotateCaRequest* request,
                        v1::CaStatus* response) override {
    return ToGrpc(DoRotateCa(*context, *request, *response));
  }
  grpc::Status GetCaStatus(grpc::ServerContext* context, const v1::GetCaStatusRequest* /*request*/,
                           v1::CaStatus* response) override {
    const absl::Status allowed = CheckOperator(*context, "ca status");
    return ToGrpc(allowed.ok() ? TellCaStatus(*response) : allowed);
  }
  grpc::Status ListBundles(grpc::ServerContext* context, const v1::ListBundlesRequest* /*request*/,
                           v1::BundleList* response) override {
    const absl::Status allowed = CheckOperator(*context, "bundle list");
    if (allowed.ok()) {
      FillBundles(*response);
    }
    return ToGrpc(allowed);
  }
  grpc::Status RefreshBundles(grpc::ServerContext* context,
                              const v1::RefreshBundlesRequest* request,
                              v1::BundleList* response) override {
    absl::Status done = CheckOperator(*context, "bundle refresh");
    if (done.ok()) {
      done = parts_.federation->Refresh(request->trust_domain(), request->accept_older());
    }
    if (done.ok()) {
      FillBundles(*response);
    }
    return ToGrpc(done);
  }
  grpc::Status Revoke(grpc::ServerContext* context, const v1::RevokeRequest* request,
                      v1::RevokeResponse* response) override {
    const absl::Status allowed = CheckOperator(*context, "revoke");
    return ToGrpc(allowed.ok() ? DoRevoke(parts_, *request, *response) : allowed);
  }
  grpc::Status LiftRevocation(grpc::ServerContext* context,
                              const v1::LiftRevocationRequest* request,
                              v1::RevokeResponse* response) override {
    const absl::Status allowed = CheckOperator(*context, "revoke lift");
    return ToGrpc(allowed.ok() ? DoLift(parts_, *request, *response) : allowed);
  }
  grpc::Status ListRevocations(grpc::ServerContext* context,
                               const v1::ListRevocationsRequest* /*request*/,
                               v1::RevocationList* response) override {
    const absl::Status allowed = CheckOperator(*context, "revoke list");
    if (allowed.ok()) {
      *response = ToMessage(*parts_.revocations->list());
      response->set_trust_domain(parts_.ca->trust_domain().name());
    }
    return ToGrpc(allowed);
  }

 private:
  // PermissionDenied unless the peer is root or our own user. Leaves an audit line.
  absl::Status CheckOperator(const grpc::ServerContext& context, std::string_view verb) const;
  absl::Status DoCreateEntry(const grpc::ServerContext& context,
                             const v1::CreateEntryRequest& request, v1::Entry& response);
  absl::Status DoListEntries(const grpc::ServerContext& context,
                             const v1::ListEntriesRequest& request,
                             v1::ListEntriesResponse& response);
  absl::Status DoDeleteEntry(const grpc::ServerContext& context,
                             const v1::DeleteEntryRequest& request);
  absl::Status DoCreateToken(const grpc::ServerContext& context,
                             const v1::CreateTokenRequest& request,
                             v1::CreateTokenResponse& response);
  absl::Status DoPutPolicy(const grpc::ServerContext& context, const v1::PolicyDocuments& request,
                           v1::PolicyDocuments& response);
  absl::Status DoGetStatus(const grpc::ServerContext& context, v1::IssuerStatus& response);
  absl::Status DoRotateCa(const grpc::ServerContext& context, const v1::RotateCaRequest& request,
                          v1::CaStatus& response);
  absl::Status TellCaStatus(v1::CaStatus& response) const;
  void FillBundles(v1::BundleList& response) const;

  const ServiceParts parts_;
  issue::Registry& registry_;
};

absl::Status AdminService::CheckOperator(const grpc::ServerContext& context,
                                         std::string_view verb) const {
  const Caller caller = WhoCalls(context, parts_.unix_listener);
  const bool may = caller.unix_peer != nullptr &&
                   (caller.unix_peer->uid() == 0 || caller.unix_peer->uid() == geteuid());
  spdlog::info("admin verb=\"{}\" source={} allowed={}", verb, caller.source, may);
  return may ? absl::OkStatus()
             : absl::PermissionDeniedError("only root and the issuer's own user may administer it");
}

absl::Status AdminService::DoCreateEntry(const grpc::ServerContext& context,
                                         const v1::CreateEntryRequest& request,
                                         v1::Entry& response) {
  if (absl::Status allowed = CheckOperator(context, "entry create"); !allowed.ok()) {
    return allowed;
  }
  absl::StatusOr<store::Entry> wanted = FromMessage(request.entry());
  if (!wanted.ok()) {
    return wanted.status();
  }
  const absl::StatusOr<store::Entry> created = registry_.CreateEntry(*std::move(wanted));
  if (!created.ok()) {
    return created.status();
  }
  response = ToMessage(*created);
  return parts_.mesh->ReloadEntry(created->id);
}

absl::Status AdminService::DoListEntries(const grpc::ServerContext& context,
                                         const v1::ListEntriesRequest& request,
                                         v1::ListEntriesResponse& response) {
  if (absl::Status allowed = CheckOperator(context, "entry list"); !allowed.ok()) {
    return allowed;
  }
  const absl::StatusOr<std::vector<store::Entry>> entries =
      registry_.ListEntries(request.spiffe_id());
  if (!entries.ok()) {
    return entries.status();
  }
  for (const store::Entry& entry : *entries) {
    *response.add_entries() = ToMessage(entry);
  }
  return absl::OkStatus();
}

absl::Status AdminService::DoDeleteEntry(const grpc::ServerContext& context,
                                         const v1::DeleteEntryRequest& request) {
  if (absl::Status allowed = CheckOperator(context, "entry delete"); !allowed.ok()) {
    return allowed;
  }
  if (absl::Status deleted = registry_.DeleteEntry(request.id()); !deleted.ok()) {
    return deleted;
  }
  // The entry first: its proxies are told that they have no place any more in the same breath.
  absl::Status done = parts_.mesh->ReloadEntry(request.id());
  done.Update(FollowDeletion(parts_));
  return done;
}

absl::Status AdminService::DoCreateToken(const grpc::ServerContext& context,
                                         const v1::CreateTokenRequest& request,
                                         v1::CreateTokenResponse& response) {
  if (absl::Status allowed = CheckOperator(context, "token create"); !allowed.ok()) {
    return allowed;
  }
  absl::StatusOr<store::Entry> wanted = FromMessage(request.entry());
  if (!wanted.ok()) {
    return wanted.status();
  }
  const absl::StatusOr<issue::CreatedToken> created =
      registry_.CreateToken(*std::move(wanted), absl::Seconds(request.ttl_seconds()));
  if (!created.ok()) {
    return created.status();
  }
  response.set_token(created->token);
  *response.mutable_entry() = ToMessage(created->entry);
  response.set_expires_at(absl::ToUnixSeconds(created->expires_at));
  return parts_.mesh->ReloadEntry(created->entry.id);
}

absl::Status AdminService::DoPutPolicy(const grpc::ServerContext& context,
                                       const v1::PolicyDocuments& request,
                                       v1::PolicyDocuments& response) {
  if (absl::Status allowed = CheckOperator(context, "policy put"); !allowed.ok()) {
    return allowed;
  }
  if (request.documents_size() > static_cast<int>(kMaxPolicyDocuments)) {
    return absl::InvalidArgumentError(base::StrCat("documents: at most ", kMaxPolicyDocuments));
  }
  std::vector<store::PolicyDocument> documents;
  for (const v1::PolicyDocuments::Document& document : request.documents()) {
    documents.push_back({document.name(), document.yaml()});
  }
  const absl::StatusOr<store::PolicyDocuments> put = parts_.store->policy().PutPolicy(documents);
  if (!put.ok()) {
    return put.status();
  }
  response = ToMessage(*put);
  return parts_.mesh->ReloadPolicy();
}

absl::Status AdminService::DoGetStatus(const grpc::ServerContext& context,
                                       v1::IssuerStatus& response) {
  if (absl::Status allowed = CheckOperator(context, "status"); !allowed.ok()) {
    return allowed;
  }
  const absl::StatusOr<uint64_t> issued = parts_.store->certificates().CountIssued();
  if (!issued.ok()) {
    return issued.status();
  }
  response.set_trust_domain(parts_.ca->trust_domain().name());
  *response.mutable_bundle_version() = ToMessage(parts_.mesh->bundles()->version);
  *response.mutable_policy_version() = ToMessage(parts_.mesh->policy()->version);
  response.set_certificates_issued(*issued);
  for (const mesh::ProxyStatus& status : parts_.mesh->Proxies()) {
    v1::IssuerStatus::Proxy& proxy = *response.add_proxies();
    proxy.set_spiffe_id(status.spiffe_id);
    proxy.set_address(status.source.ToString());
    *proxy.mutable_acked_bundles() = ToMessage(status.acked_bundles);
    *proxy.mutable_acked_policy() = ToMessage(status.acked_policy);
    *proxy.mutable_acked_revocations() = ToMessage(status.acked_revocations);
    proxy.set_last_error(status.last_error);
    proxy.set_connected_at(absl::ToUnixSeconds(status.connected_at));
  }
  response.set_connected_proxies(static_cast<uint32_t>(response.proxies_size()));
  return absl::OkStatus();
}

absl::Status AdminService::TellCaStatus(v1::CaStatus& response) const {
  const absl::StatusOr<RotationReport> report = parts_.rotation->Report();
  if (report.ok()) {
    response = ToMessage(*report);
  }
  return report.status();
}

absl::Status AdminService::DoRotateCa(const grpc::ServerContext& context,
                                      const v1::RotateCaRequest& request, v1::CaStatus& response) {
  const std::string verb =
      base::StrCat("ca ", v1::RotationStep_Name(request.step()), " ",
                   v1::CaKind_Name(request.kind()), request.force() ? " force" : "");
  if (absl::Status allowed = CheckOperator(context, verb); !allowed.ok()) {
    return allowed;
  }
  const absl::StatusOr<ca::CaKind> kind = FromMessage(request.kind());
  const absl::StatusOr<RotationStep> step = FromMessage(request.step());
  if (!kind.ok() || !step.ok()) {
    return kind.ok() ? step.status() : kind.status();
  }
  if (absl::Status made = parts_.rotation->Step(*kind, *step, request.force()); !made.ok()) {
    return made;
  }
  return TellCaStatus(response);
}

void AdminService::FillBundles(v1::BundleList& response) const {
  const std::shared_ptr<const mesh::BundleSet> set = parts_.mesh->bundles();
  *response.mutable_version() = ToMessage(set->version);
  v1::BundleList::Bundle& own = *response.add_bundles();
  own.set_trust_domain(set->bundles.front().trust_domain);
  own.set_own(true);
  for (const std::string& der : set->bundles.front().root_der) {
    own.add_root_der(der);
  }
  const absl::Time now = parts_.clock->Now();
  for (const federation::ForeignStatus& one : parts_.federation->Foreign()) {
    *response.add_bundles() = ToMessage(one, now);
  }
}

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(const ServiceParts& parts,
                                                issue::Registry& registry) {
  return std::make_unique<AdminService>(parts, registry);
}

}  // namespace postern::service
