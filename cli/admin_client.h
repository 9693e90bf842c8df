// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "postern/v1/admin.pb.h"

namespace postern::cli {

// The issuer's administration over its unix socket. Every call blocks for up to ten seconds. Errors
// name --socket where the socket is at fault; else they carry the issuer's own words.
class AdminClient {
 public:
  // Tries the socket at once, so that a missing issuer, a wrong path and a missing permission are
  // told apart: NotFound, Unavailable or PermissionDenied.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Connect(const std::string& socket_path);
  ~AdminClient();
  AdminClient(const AdminClient&) = delete;
  AdminClient& operator=(const AdminClient&) = delete;

  absl::StatusOr<v1::Entry> CreateEntry(const v1::CreateEntryRequest& request);
  absl::StatusOr<v1::ListEntriesResponse> ListEntries(const v1::ListEntriesRequest& request);
  absl::StatusOr<v1::DeleteEntryResponse> DeleteEntry(const v1::DeleteEntryRequest& request);
  absl::StatusOr<v1::CreateTokenResponse> CreateToken(const v1::CreateTokenRequest& request);
  absl::StatusOr<v1::BundleSet> GetBundles();
  absl::StatusOr<v1::BundleList> ListBundles();
  // Blocks for as long as all the endpoints may take: up to a minute.
  absl::StatusOr<v1::BundleList> RefreshBundles(const v1::RefreshBundlesRequest& request);
  absl::StatusOr<v1::PolicyDocuments> PutPolicy(const v1::PolicyDocuments& documents);
  absl::StatusOr<v1::PolicyDocuments> GetPolicy();
  absl::StatusOr<v1::IssuerStatus> GetStatus();
  absl::StatusOr<v1::CaStatus> RotateCa(const v1::RotateCaRequest& request);
  absl::StatusOr<v1::CaStatus> GetCaStatus();
  absl::StatusOr<v1::RevokeResponse> Revoke(const v1::RevokeRequest& request);
  absl::StatusOr<v1::RevokeResponse> LiftRevocation(const v1::LiftRevocationRequest& request);
  absl::StatusOr<v1::RevocationList> ListRevocations();

 private:
  struct Impl;
  explicit AdminClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::cli
