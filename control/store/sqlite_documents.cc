// SPDX-License-Identifier: Apache-2.0
// CA certificates and policy documents: what is versioned.
#include <algorithm>
#include <set>
#include <utility>

#include "common/base/strings.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

// Counted from 1, so that {epoch, 0} means "nothing yet".
constexpr std::string_view kBundleCounter = "bundle_changes";
constexpr std::string_view kPolicyCounter = "policy_changes";
// What was published last, and the counter's value at that time.
constexpr std::string_view kPublishedBundles = "published_bundles";
constexpr std::string_view kPublishedChanges = "published_bundle_changes";

absl::StatusOr<CaRecord> CaFromRow(const Statement& row) {
  CaRecord record;
  record.id = row.Text(0);
  const std::string role = row.Text(1);
  const std::string state = row.Text(2);
  bool known_state = false;
  for (CaState candidate : {CaState::kNext, CaState::kCurrent, CaState::kRetired}) {
    if (NameOf(candidate) == state) {
      record.state = candidate;
      known_state = true;
    }
  }
  if (!known_state || (role != "root" && role != "intermediate")) {
    return absl::DataLossError(
        base::StrCat("CA ", record.id, ": the stored role or state is unknown: restore a backup"));
  }
  record.role = role == "root" ? CaRole::kRoot : CaRole::kIntermediate;
  record.issuer_id = row.Text(3);
  record.certificate_der = row.Blob(4);
  record.created_at = absl::FromUnixSeconds(row.Int(5));
  return record;
}

absl::Status InsertCa(Connection& connection, const CaRecord& record) {
  absl::StatusOr<Statement> insert = connection.Prepare(
      "INSERT INTO cas (id, role, state, issuer_id, certificate, created_at) "
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
  if (!insert.ok()) {
    return insert.status();
  }
  return insert->Bind(1, record.id)
      .Bind(2, NameOf(record.role))
      .Bind(3, NameOf(record.state))
      .Bind(4, record.issuer_id)
      .BindBlob(5, base::AsBytes(record.certificate_der))
      .Bind(6, absl::ToUnixSeconds(record.created_at))
      .Run();
}

absl::StatusOr<Version> ReadVersion(Connection& connection, std::string_view counter,
                                    uint64_t epoch) {
  absl::StatusOr<int64_t> changes = ReadCounter(connection, counter);
  if (!changes.ok()) {
    return changes.status();
  }
  return Version{epoch, static_cast<uint64_t>(*changes) + 1};
}

absl::StatusOr<std::string> ReadMetaText(Connection& connection, std::string_view key) {
  absl::StatusOr<Statement> query = connection.Prepare("SELECT value FROM meta WHERE key = ?1");
  if (!query.ok()) {
    return query.status();
  }
  const absl::StatusOr<bool> row = query->Bind(1, key).Step();
  if (!row.ok()) {
    return row.status();
  }
  return *row ? query->Text(0) : std::string();
}

template <typename Value>
absl::Status PutMeta(Connection& connection, std::string_view key, const Value& value) {
  absl::StatusOr<Statement> put = connection.Prepare(
      "INSERT INTO meta (key, value) VALUES (?1, ?2) "
      "ON CONFLICT (key) DO UPDATE SET value = excluded.value");
  return put.ok() ? put->Bind(1, key).Bind(2, value).Run() : put.status();
}

// The counter's value under which the bundles with this digest go out.
absl::StatusOr<int64_t> CountBundles(Connection& connection, const std::string& digest) {
  const absl::StatusOr<std::string> published = ReadMetaText(connection, kPublishedBundles);
  if (!published.ok()) {
    return published.status();
  }
  if (*published == digest) {
    return ReadCounter(connection, kPublishedChanges);
  }
  absl::Status status = AddToCounter(connection, kBundleCounter, 1);
  const absl::StatusOr<int64_t> changes = ReadCounter(connection, kBundleCounter);
  status.Update(changes.status());
  if (status.ok()) {
    status = PutMeta(connection, kPublishedBundles, std::string_view(digest));
  }
  if (status.ok()) {
    status = PutMeta(connection, kPublishedChanges, *changes);
  }
  if (!status.ok()) {
    return status;
  }
  return *changes;
}

absl::Status CheckNames(const std::vector<PolicyDocument>& documents) {
  std::set<std::string_view> names;
  for (const PolicyDocument& document : documents) {
    if (document.name.empty()) {
      return absl::InvalidArgumentError("a policy document has no name");
    }
    if (!names.insert(document.name).second) {
      return absl::InvalidArgumentError(
          base::StrCat("two policy documents are named \"", base::Printable(document.name), "\""));
    }
  }
  return absl::OkStatus();
}

absl::Status ReplaceDocuments(Connection& connection,
                              const std::vector<PolicyDocument>& documents) {
  absl::Status status = connection.Execute("DELETE FROM policy_documents");
  for (size_t i = 0; status.ok() && i < documents.size(); ++i) {
    absl::StatusOr<Statement> insert = connection.Prepare(
        "INSERT INTO policy_documents (position, name, yaml) VALUES (?1, ?2, ?3)");
    status = insert.ok() ? insert->Bind(1, static_cast<int64_t>(i))
                               .Bind(2, documents[i].name)
                               .Bind(3, documents[i].yaml)
                               .Run()
                         : insert.status();
  }
  return status;
}

}  // namespace

absl::Status CountBundleChange(Connection& connection) {
  return AddToCounter(connection, kBundleCounter, 1);
}

absl::StatusOr<std::vector<CaRecord>> SqliteCas::ListCas() {
  std::vector<CaRecord> records;
  absl::Status status = database_.Read([&records](Connection& connection) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT id, role, state, issuer_id, certificate, created_at FROM cas "
        "ORDER BY role DESC, number");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Step();
    for (; row.ok() && *row; row = query->Step()) {
      absl::StatusOr<CaRecord> record = CaFromRow(*query);
      if (!record.ok()) {
        return record.status();
      }
      records.push_back(*std::move(record));
    }
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return records;
}

absl::Status SqliteCas::AddCas(const std::vector<CaRecord>& records) {
  return database_.Write([&records](Connection& connection) {
    absl::Status status;
    for (size_t i = 0; status.ok() && i < records.size(); ++i) {
      status = InsertCa(connection, records[i]);
    }
    const bool roots_changed =
        std::any_of(records.begin(), records.end(),
                    [](const CaRecord& record) { return record.role == CaRole::kRoot; });
    if (status.ok() && roots_changed) {
      status = CountBundleChange(connection);
    }
    return status;
  });
}

absl::StatusOr<Version> SqliteCas::BundleVersion() {
  return database_.ReadValue(
      [this](Connection& connection) { return ReadVersion(connection, kBundleCounter, epoch_); });
}

absl::StatusOr<Version> SqliteCas::VersionOfBundles(const base::Sha256Digest& content) {
  const std::string digest = base::ToHex(content);
  return database_.WriteValue([this, &digest](Connection& connection) -> absl::StatusOr<Version> {
    const absl::StatusOr<int64_t> changes = CountBundles(connection, digest);
    if (!changes.ok()) {
      return changes.status();
    }
    return Version{epoch_, static_cast<uint64_t>(*changes) + 1};
  });
}

absl::StatusOr<Version> SqliteCas::RaiseBundleVersion() {
  return database_.WriteValue([this](Connection& connection) -> absl::StatusOr<Version> {
    if (absl::Status added = AddToCounter(connection, kBundleCounter, 1); !added.ok()) {
      return added;
    }
    return ReadVersion(connection, kBundleCounter, epoch_);
  });
}

absl::StatusOr<PolicyDocuments> SqlitePolicy::GetPolicy() {
  PolicyDocuments policy;
  absl::Status status = database_.Read([this, &policy](Connection& connection) {
    absl::StatusOr<Version> version = ReadVersion(connection, kPolicyCounter, epoch_);
    if (!version.ok()) {
      return version.status();
    }
    policy.version = *version;
    absl::StatusOr<Statement> query =
        connection.Prepare("SELECT name, yaml FROM policy_documents ORDER BY position");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Step();
    for (; row.ok() && *row; row = query->Step()) {
      policy.documents.push_back({.name = query->Text(0), .yaml = query->Text(1)});
    }
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return policy;
}

absl::StatusOr<PolicyDocuments> SqlitePolicy::PutPolicy(
    const std::vector<PolicyDocument>& documents) {
  if (absl::Status status = CheckNames(documents); !status.ok()) {
    return status;
  }
  const absl::StatusOr<Version> version =
      database_.WriteValue([this, &documents](Connection& connection) -> absl::StatusOr<Version> {
        absl::Status replaced = ReplaceDocuments(connection, documents);
        if (replaced.ok()) {
          replaced = AddToCounter(connection, kPolicyCounter, 1);
        }
        if (!replaced.ok()) {
          return replaced;
        }
        return ReadVersion(connection, kPolicyCounter, epoch_);
      });
  if (!version.ok()) {
    return version.status();
  }
  return PolicyDocuments{.version = *version, .documents = documents};
}

}  // namespace postern::store
