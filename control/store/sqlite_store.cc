// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/strings.h"
#include "common/base/unique_fd.h"
#include "control/store/schema.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

absl::Status FileError(const std::string& path, int error) {
  const std::string text = base::StrCat(path, ": ", std::strerror(error));
  if (error == EACCES || error == EPERM || error == EROFS) {
    return absl::PermissionDeniedError(
        base::StrCat(text, " (the issuer must own its state directory and be able to write it)"));
  }
  if (error == ENOENT) {
    return absl::NotFoundError(text);
  }
  return absl::UnavailableError(text);
}

// Takes the state directory for this process, until the descriptor is closed.
absl::StatusOr<base::UniqueFd> LockStateDirectory(const std::string& state_dir) {
  const std::string path = base::StrCat(state_dir, "/", kLockFile);
  base::UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock.get() < 0) {
    return FileError(path, errno);
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return FileError(path, errno);
    }
    char holder[32] = {};
    const ssize_t got = pread(lock.get(), holder, sizeof(holder) - 1, 0);
    return absl::FailedPreconditionError(base::StrCat(
        "another issuer (pid ", got > 0 ? base::Printable({holder, static_cast<size_t>(got)}) : "?",
        ") uses ", state_dir, ": stop it, or choose another --state-dir"));
  }
  // For the message above only; the lock itself does not depend on it.
  const std::string pid = base::StrCat(getpid());
  if (ftruncate(lock.get(), 0) != 0 ||
      pwrite(lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return FileError(path, errno);
  }
  return lock;
}

// Makes the database file with our mode before SQLite would with its own; -wal and -shm follow it.
absl::Status MakeDatabaseFile(const std::string& path) {
  const base::UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) {
    return FileError(path, errno);
  }
  struct stat facts {};
  if (fstat(fd.get(), &facts) != 0) {
    return FileError(path, errno);
  }
  if (!S_ISREG(facts.st_mode) || (facts.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(
        base::StrCat(path, " must be a regular file that only its owner can read (chmod 600)"));
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || fsync(fd.get()) != 0) {
    return FileError(path, errno);
  }
  return absl::OkStatus();
}

// Full durability for the file of `connection`, and a look whether it is whole.
absl::Status PrepareFile(Connection& connection, const std::string& path) {
  absl::StatusOr<std::string> mode = connection.Ask("PRAGMA journal_mode=WAL");
  if (!mode.ok()) {
    return mode.status();
  }
  if (*mode != "wal") {
    return absl::UnavailableError(
        base::StrCat(path, ": the file system does not support SQLite's write-ahead log"));
  }
  if (absl::Status status = connection.Execute("PRAGMA synchronous=FULL"); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::string> check = connection.Ask("PRAGMA quick_check(1)");
  if (!check.ok()) {
    return check.status();
  }
  if (*check != "ok") {
    return absl::DataLossError(
        base::StrCat(path, " is damaged (", *check, "): restore a backup of it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadMeta(Connection& connection, std::string_view key) {
  absl::StatusOr<Statement> query = connection.Prepare("SELECT value FROM meta WHERE key = ?1");
  if (!query.ok()) {
    return query.status();
  }
  absl::StatusOr<bool> row = query->Bind(1, key).Step();
  if (!row.ok()) {
    return row.status();
  }
  return *row ? query->Text(0) : std::string();
}

absl::Status InsertMeta(Connection& connection, std::string_view key, std::string_view value) {
  absl::StatusOr<Statement> insert =
      connection.Prepare("INSERT INTO meta (key, value) VALUES (?1, ?2)");
  return insert.ok() ? insert->Bind(1, key).Bind(2, value).Run() : insert.status();
}

// A fresh store learns whose it is; an old one must agree. Gives the epoch.
absl::StatusOr<uint64_t> ClaimStore(Connection& connection, const x509::TrustDomain& trust_domain,
                                    absl::Time now) {
  absl::StatusOr<std::string> owner = ReadMeta(connection, "trust_domain");
  if (!owner.ok()) {
    return owner.status();
  }
  if (owner->empty()) {
    absl::Status status = connection.Execute("BEGIN IMMEDIATE");
    status.Update(InsertMeta(connection, "trust_domain", trust_domain.name()));
    status.Update(AddToCounter(connection, "epoch", std::max<int64_t>(1, absl::ToUnixMillis(now))));
    status.Update(status.ok() ? connection.Execute("COMMIT") : connection.Execute("ROLLBACK"));
    if (!status.ok()) {
      return status;
    }
  } else if (*owner != trust_domain.name()) {
    return absl::FailedPreconditionError(base::StrCat(
        "the state directory belongs to trust domain ", base::Printable(*owner), ", not ",
        trust_domain.name(), ": correct --trust-domain, or choose another --state-dir"));
  }
  absl::StatusOr<int64_t> epoch = ReadCounter(connection, "epoch");
  if (!epoch.ok()) {
    return epoch.status();
  }
  if (*epoch <= 0) {
    return absl::DataLossError("the store has no epoch: restore a backup");
  }
  return static_cast<uint64_t>(*epoch);
}

class SqliteStore : public Store {
 public:
  SqliteStore(base::UniqueFd lock, std::unique_ptr<Connection> writer,
              std::unique_ptr<Connection> reader, uint64_t epoch, const base::Clock& clock)
      : lock_(std::move(lock)),
        database_(std::move(writer), std::move(reader)),
        epoch_(epoch),
        entries_(database_, clock),
        tokens_(database_, clock),
        certificates_(database_),
        cas_(database_, epoch),
        policy_(database_, epoch),
        speakers_(database_),
        foreign_bundles_(database_),
        revocations_(database_, epoch, clock) {}

  EntryStore& entries() override { return entries_; }
  TokenStore& tokens() override { return tokens_; }
  CertificateLog& certificates() override { return certificates_; }
  CaStore& cas() override { return cas_; }
  PolicyStore& policy() override { return policy_; }
  SpeakerStore& speakers() override { return speakers_; }
  ForeignBundleStore& foreign_bundles() override { return foreign_bundles_; }
  RevocationStore& revocations() override { return revocations_; }
  uint64_t epoch() const override { return epoch_; }
  uint64_t error_count() const override { return database_.error_count(); }
  absl::Status Probe() override {
    return database_.Write(
        [](Connection& connection) { return AddToCounter(connection, "probe", 1); });
  }

 private:
  const base::UniqueFd lock_;  // first in, last out: the database is closed before it is given up
  Database database_;
  const uint64_t epoch_;
  SqliteEntries entries_;
  SqliteTokens tokens_;
  SqliteCertificates certificates_;
  SqliteCas cas_;
  SqlitePolicy policy_;
  SqliteSpeakers speakers_;
  SqliteForeignBundles foreign_bundles_;
  SqliteRevocations revocations_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& state_dir,
                                                       const x509::TrustDomain& trust_domain,
                                                       const base::Clock& clock) {
  absl::StatusOr<base::UniqueFd> lock = LockStateDirectory(state_dir);
  if (!lock.ok()) {
    return lock.status();
  }
  const std::string path = base::StrCat(state_dir, "/", kDatabaseFile);
  if (absl::Status status = MakeDatabaseFile(path); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<Connection>> writer =
      Connection::Open(path, SQLITE_OPEN_READWRITE);
  if (!writer.ok()) {
    return writer.status();
  }
  absl::Status status = PrepareFile(**writer, path);
  if (status.ok()) {
    status = Migrate(**writer, Migrations(), path, clock.Now());
  }
  if (status.ok()) {
    status = SyncDirectory(state_dir);
  }
  if (!status.ok()) {
    return status;
  }
  absl::StatusOr<uint64_t> epoch = ClaimStore(**writer, trust_domain, clock.Now());
  if (!epoch.ok()) {
    return epoch.status();
  }
  // Opened for writing as WAL readers need the shared memory file; query_only keeps it to reading.
  absl::StatusOr<std::unique_ptr<Connection>> reader =
      Connection::Open(path, SQLITE_OPEN_READWRITE);
  if (!reader.ok()) {
    return reader.status();
  }
  if (status = (*reader)->Execute("PRAGMA query_only=ON"); !status.ok()) {
    return status;
  }
  return std::make_unique<SqliteStore>(*std::move(lock), *std::move(writer), *std::move(reader),
                                       *epoch, clock);
}

absl::StatusOr<std::unique_ptr<Store>> OpenMemoryStore(const x509::TrustDomain& trust_domain,
                                                       const base::Clock& clock) {
  absl::StatusOr<std::unique_ptr<Connection>> writer =
      Connection::Open(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  if (!writer.ok()) {
    return writer.status();
  }
  if (absl::Status status = Migrate(**writer, Migrations(), "", clock.Now()); !status.ok()) {
    return status;
  }
  absl::StatusOr<uint64_t> epoch = ClaimStore(**writer, trust_domain, clock.Now());
  if (!epoch.ok()) {
    return epoch.status();
  }
  return std::make_unique<SqliteStore>(base::UniqueFd(-1), *std::move(writer), nullptr, *epoch,
                                       clock);
}

}  // namespace postern::store
