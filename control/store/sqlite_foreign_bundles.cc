// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "control/store/sqlite_nouns.h"

namespace postern::store {

absl::StatusOr<std::vector<ForeignBundle>> SqliteForeignBundles::ListForeignBundles() {
  std::vector<ForeignBundle> bundles;
  absl::Status status = database_.Read([&bundles](Connection& connection) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT trust_domain, document, fetched_at, bootstrap_sha256 FROM foreign_bundles "
        "ORDER BY trust_domain");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Step();
    for (; row.ok() && *row; row = query->Step()) {
      bundles.push_back({.trust_domain = query->Text(0),
                         .document = query->Text(1),
                         .fetched_at = absl::FromUnixSeconds(query->Int(2)),
                         .bootstrap_sha256 = query->Text(3)});
    }
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return bundles;
}

absl::Status SqliteForeignBundles::PutForeignBundle(const ForeignBundle& bundle) {
  return database_.Write([&bundle](Connection& connection) {
    absl::StatusOr<Statement> put = connection.Prepare(
        "INSERT INTO foreign_bundles (trust_domain, document, fetched_at, bootstrap_sha256) "
        "VALUES (?1, ?2, ?3, ?4) ON CONFLICT (trust_domain) DO UPDATE SET "
        "document = excluded.document, fetched_at = excluded.fetched_at, "
        "bootstrap_sha256 = excluded.bootstrap_sha256");
    return put.ok() ? put->Bind(1, bundle.trust_domain)
                          .Bind(2, bundle.document)
                          .Bind(3, absl::ToUnixSeconds(bundle.fetched_at))
                          .Bind(4, bundle.bootstrap_sha256)
                          .Run()
                    : put.status();
  });
}

absl::Status SqliteForeignBundles::DeleteForeignBundle(std::string_view trust_domain) {
  return database_.Write([trust_domain](Connection& connection) {
    absl::StatusOr<Statement> remove =
        connection.Prepare("DELETE FROM foreign_bundles WHERE trust_domain = ?1");
    return remove.ok() ? remove->Bind(1, trust_domain).Run() : remove.status();
  });
}

}  // namespace postern::store
