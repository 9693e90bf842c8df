// SPDX-License-Identifier: Apache-2.0
#include "control/store/schema.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "common/base/strings.h"

namespace postern::store {
namespace {

constexpr std::array<const char*, 5> kMigrations = {
    R"sql(
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value NOT NULL
) WITHOUT ROWID;

CREATE TABLE entries (
  number         INTEGER PRIMARY KEY AUTOINCREMENT,
  id             TEXT NOT NULL UNIQUE,
  spiffe_id      TEXT NOT NULL,
  selectors      TEXT NOT NULL UNIQUE,
  selector_count INTEGER NOT NULL,
  addresses      TEXT NOT NULL,
  publish_source INTEGER NOT NULL,
  ports          TEXT NOT NULL,
  svid_ttl_ms    INTEGER NOT NULL,
  created_at     INTEGER NOT NULL
);
CREATE INDEX entries_by_spiffe_id ON entries (spiffe_id);

CREATE TABLE entry_selectors (
  selector TEXT NOT NULL,
  entry_id TEXT NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
  PRIMARY KEY (selector, entry_id)
) WITHOUT ROWID;
CREATE INDEX entry_selectors_by_entry ON entry_selectors (entry_id);

CREATE TABLE tokens (
  sha256        BLOB PRIMARY KEY,
  token_id      TEXT NOT NULL UNIQUE,
  entry_id      TEXT NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
  expires_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tokens_by_entry ON tokens (entry_id);
CREATE INDEX tokens_by_expiry ON tokens (expires_at_ms);

CREATE TABLE certificates (
  serial      TEXT PRIMARY KEY,
  spiffe_id   TEXT NOT NULL,
  entry_id    TEXT NOT NULL,
  ca_id       TEXT NOT NULL,
  not_before  INTEGER NOT NULL,
  not_after   INTEGER NOT NULL,
  issued_at   INTEGER NOT NULL,
  key_sha256  BLOB NOT NULL,
  leaf_sha256 BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX certificates_by_expiry ON certificates (not_after);

CREATE TABLE cas (
  number      INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT NOT NULL UNIQUE,
  role        TEXT NOT NULL CHECK (role IN ('root', 'intermediate')),
  state       TEXT NOT NULL CHECK (state IN ('next', 'current', 'retired')),
  issuer_id   TEXT NOT NULL,
  certificate BLOB NOT NULL,
  created_at  INTEGER NOT NULL
);
CREATE UNIQUE INDEX cas_one_of_each ON cas (role, state) WHERE state <> 'retired';

CREATE TABLE speakers (
  entry_id TEXT NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
  source   TEXT NOT NULL,
  ports    TEXT NOT NULL,
  PRIMARY KEY (entry_id, source)
) WITHOUT ROWID;

CREATE TABLE policy_documents (
  position INTEGER PRIMARY KEY,
  name     TEXT NOT NULL UNIQUE,
  yaml     TEXT NOT NULL
);
)sql",
    R"sql(
ALTER TABLE certificates ADD COLUMN replaces TEXT NOT NULL DEFAULT '';

CREATE TABLE withdrawn_cas (
  number       INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT NOT NULL UNIQUE,
  role         TEXT NOT NULL CHECK (role IN ('root', 'intermediate')),
  certificate  BLOB NOT NULL,
  in_order     INTEGER NOT NULL,
  withdrawn_at INTEGER NOT NULL
);
)sql",
    R"sql(
CREATE TABLE foreign_bundles (
  trust_domain     TEXT PRIMARY KEY,
  document         TEXT NOT NULL,
  fetched_at       INTEGER NOT NULL,
  bootstrap_sha256 TEXT NOT NULL
) WITHOUT ROWID;
)sql",
    R"sql(
CREATE TABLE revocations (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,
  sequence   INTEGER NOT NULL,
  kind       TEXT NOT NULL,
  subject    TEXT NOT NULL,
  reason     TEXT NOT NULL,
  revoked_at INTEGER NOT NULL,
  forget_at  INTEGER NOT NULL,
  UNIQUE (kind, subject)
);
CREATE INDEX revocations_by_sequence ON revocations (sequence);
CREATE INDEX revocations_by_end ON revocations (forget_at) WHERE forget_at > 0;

CREATE INDEX certificates_by_spiffe_id ON certificates (spiffe_id, not_after);
)sql",
    R"sql(
ALTER TABLE entries ADD COLUMN services TEXT NOT NULL DEFAULT '';
)sql"};

// The copy that a migration leaves behind: complete and on the disk before anything is changed.
absl::Status BackUp(Connection& connection, const std::string& copy) {
  // VACUUM INTO writes into an empty file that is there already: so its mode is ours to choose.
  const int fd = open(copy.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return absl::UnavailableError(
        base::StrCat("cannot make the backup copy ", copy, ": ", std::strerror(errno)));
  }
  absl::Status status;
  {
    absl::StatusOr<Statement> vacuum = connection.Prepare("VACUUM INTO ?1");
    status = vacuum.ok() ? vacuum->Bind(1, copy).Run() : vacuum.status();
  }
  if (status.ok() && fsync(fd) != 0) {
    status = absl::UnavailableError(base::StrCat(copy, ": ", std::strerror(errno)));
  }
  close(fd);
  return status;
}

}  // namespace

std::span<const char* const> Migrations() {
  return kMigrations;
}

absl::Status Migrate(Connection& connection, std::span<const char* const> steps,
                     const std::string& path, absl::Time now) {
  absl::StatusOr<std::string> text = connection.Ask("PRAGMA user_version");
  size_t version = 0;
  if (!text.ok()) {
    return text.status();
  }
  if (!absl::SimpleAtoi(*text, &version) || version > steps.size()) {
    return absl::FailedPreconditionError(
        base::StrCat(path, " has schema version ", *text, ", and this release knows up to ",
                     steps.size(), ": run the release that wrote it, or a newer one"));
  }
  if (version == steps.size()) {
    return absl::OkStatus();
  }
  if (version > 0 && !path.empty()) {
    const std::string copy =
        base::StrCat(path, ".v", version, ".", absl::ToUnixSeconds(now), ".bak");
    if (absl::Status status = BackUp(connection, copy); !status.ok()) {
      return status;
    }
  }
  absl::Status status = connection.Execute("BEGIN IMMEDIATE");
  for (size_t step = version; status.ok() && step < steps.size(); ++step) {
    status = connection.Execute(steps[step]);
  }
  if (status.ok()) {
    // A PRAGMA takes no parameters; this one is a number of ours.
    status = connection.Execute(base::StrCat("PRAGMA user_version=", steps.size()).c_str());
  }
  if (status.ok()) {
    status = connection.Execute("COMMIT");
  }
  if (!status.ok() && connection.in_transaction()) {
    connection.Execute("ROLLBACK").IgnoreError();  // `status` says already what went wrong
  }
  return status;
}

}  // namespace postern::store
