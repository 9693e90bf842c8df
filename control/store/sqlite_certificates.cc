// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

constexpr std::string_view kIssuedCounter = "issued";

absl::Status ToDigest(std::string_view bytes, base::Sha256Digest& digest) {
  if (bytes.size() != digest.size()) {
    return absl::DataLossError("a stored hash has the wrong length: restore a backup");
  }
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return absl::OkStatus();
}

absl::StatusOr<IssuedCertificate> CertificateFromRow(const Statement& row) {
  absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(row.Text(1));
  if (!id.ok()) {
    return absl::DataLossError(base::StrCat("certificate ", row.Text(0),
                                            ": the stored SPIFFE ID does not parse: restore a "
                                            "backup"));
  }
  IssuedCertificate certificate{.serial = row.Text(0), .spiffe_id = *std::move(id)};
  certificate.entry_id = row.Text(2);
  certificate.ca_id = row.Text(3);
  certificate.replaces = row.Text(9);
  certificate.not_before = absl::FromUnixSeconds(row.Int(4));
  certificate.not_after = absl::FromUnixSeconds(row.Int(5));
  certificate.issued_at = absl::FromUnixSeconds(row.Int(6));
  absl::Status status = ToDigest(row.Blob(7), certificate.key_sha256);
  status.Update(ToDigest(row.Blob(8), certificate.leaf_sha256));
  if (!status.ok()) {
    return status;
  }
  return certificate;
}

}  // namespace

absl::StatusOr<int64_t> ReadCounter(Connection& connection, std::string_view key) {
  absl::StatusOr<Statement> query = connection.Prepare("SELECT value FROM meta WHERE key = ?1");
  if (!query.ok()) {
    return query.status();
  }
  absl::StatusOr<bool> row = query->Bind(1, key).Step();
  if (!row.ok()) {
    return row.status();
  }
  return *row ? query->Int(0) : 0;
}

absl::Status AddToCounter(Connection& connection, std::string_view key, int64_t amount) {
  absl::StatusOr<Statement> update = connection.Prepare(
      "INSERT INTO meta (key, value) VALUES (?1, ?2) "
      "ON CONFLICT (key) DO UPDATE SET value = value + ?2");
  return update.ok() ? update->Bind(1, key).Bind(2, amount).Run() : update.status();
}

absl::Status SqliteCertificates::Append(const IssuedCertificate& certificate) {
  return database_.Write([&certificate](Connection& connection) {
    absl::StatusOr<Statement> insert = connection.Prepare(
        "INSERT INTO certificates (serial, spiffe_id, entry_id, ca_id, not_before, not_after, "
        "issued_at, key_sha256, leaf_sha256, replaces) "
        "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 "
        "WHERE NOT EXISTS (SELECT 1 FROM cas WHERE id = ?4 AND state = 'retired') "
        "AND NOT EXISTS (SELECT 1 FROM withdrawn_cas WHERE id = ?4)");
    if (!insert.ok()) {
      return insert.status();
    }
    insert->Bind(1, certificate.serial)
        .Bind(2, certificate.spiffe_id.uri())
        .Bind(3, certificate.entry_id)
        .Bind(4, certificate.ca_id)
        .Bind(5, absl::ToUnixSeconds(certificate.not_before))
        .Bind(6, absl::ToUnixSeconds(certificate.not_after))
        .Bind(7, absl::ToUnixSeconds(certificate.issued_at))
        .BindBlob(8, certificate.key_sha256)
        .BindBlob(9, certificate.leaf_sha256)
        .Bind(10, certificate.replaces);
    absl::Status status = insert->Run();
    if (status.ok() && connection.changes() == 0) {
      status = absl::FailedPreconditionError(
          base::StrCat("CA ", certificate.ca_id, " signs no more: it is retired or withdrawn"));
    }
    if (status.ok()) {
      status = AddToCounter(connection, kIssuedCounter, 1);
    }
    return status;
  });
}

absl::StatusOr<IssuedCertificate> SqliteCertificates::FindBySerial(std::string_view serial) {
  absl::StatusOr<IssuedCertificate> found = absl::NotFoundError("no such certificate");
  absl::Status status = database_.Read([&found, serial](Connection& connection) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT serial, spiffe_id, entry_id, ca_id, not_before, not_after, issued_at, key_sha256, "
        "leaf_sha256, replaces FROM certificates WHERE serial = ?1");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Bind(1, serial).Step();
    if (!row.ok()) {
      return row.status();
    }
    if (*row) {
      found = CertificateFromRow(*query);
    }
    return found.status();
  });
  if (!status.ok()) {
    return status;
  }
  return found;
}

absl::StatusOr<std::vector<LiveCertificate>> SqliteCertificates::ListLive(absl::Time time) {
  std::vector<LiveCertificate> live;
  absl::Status status = database_.Read([&live, time](Connection& connection) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT serial, ca_id, replaces, issued_at, not_after FROM certificates "
        "WHERE not_after > ?1 AND entry_id <> ''");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Bind(1, absl::ToUnixSeconds(time)).Step();
    for (; row.ok() && *row; row = query->Step()) {
      live.push_back({.serial = query->Text(0),
                      .ca_id = query->Text(1),
                      .replaces = query->Text(2),
                      .issued_at = absl::FromUnixSeconds(query->Int(3)),
                      .not_after = absl::FromUnixSeconds(query->Int(4))});
    }
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return live;
}

absl::StatusOr<uint64_t> SqliteCertificates::CountIssued() {
  const absl::StatusOr<int64_t> issued = database_.ReadValue(
      [](Connection& connection) { return ReadCounter(connection, kIssuedCounter); });
  if (!issued.ok()) {
    return issued.status();
  }
  return static_cast<uint64_t>(*issued);
}

absl::StatusOr<uint64_t> SqliteCertificates::PruneExpired(absl::Time before) {
  uint64_t pruned = 0;
  absl::Status status = database_.Write([&pruned, before](Connection& connection) {
    absl::StatusOr<Statement> remove = connection.Prepare(
        "DELETE FROM certificates WHERE serial IN (SELECT serial FROM certificates "
        "WHERE not_after < ?1 ORDER BY not_after LIMIT 10000)");
    absl::Status done =
        remove.ok() ? remove->Bind(1, absl::ToUnixSeconds(before)).Run() : remove.status();
    pruned = done.ok() ? static_cast<uint64_t>(connection.changes()) : 0;
    return done;
  });
  if (!status.ok()) {
    return status;
  }
  return pruned;
}

}  // namespace postern::store
