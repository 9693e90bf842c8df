// SPDX-License-Identifier: Apache-2.0
#include "control/store/database.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "common/base/strings.h"

namespace postern::store {
namespace {

constexpr size_t kMaxGroup = 256;

}  // namespace

absl::Status SqliteStatus(int result, std::string_view what, std::string_view message) {
  const std::string text = base::StrCat(what, ": ", message);
  switch (result & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return absl::OkStatus();
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(text);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(base::StrCat(
          text, " (the database is damaged: stop the issuer and restore a backup of it)"));
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_NOMEM:
    case SQLITE_PROTOCOL:
    case SQLITE_NOLFS:
      return absl::UnavailableError(text);
    default:
      return absl::InternalError(text);
  }
}

Statement::Statement(Connection& connection, sqlite3_stmt* statement)
    : connection_(&connection), statement_(statement) {}

Statement::Statement(Statement&& other) noexcept
    : connection_(other.connection_),
      statement_(std::exchange(other.statement_, nullptr)),
      bind_result_(other.bind_result_) {}

Statement::~Statement() {
  if (statement_ != nullptr) {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
}

Statement& Statement::Bind(int index, int64_t value) {
  bind_result_ = std::max(bind_result_, sqlite3_bind_int64(statement_, index, value));
  return *this;
}

Statement& Statement::Bind(int index, std::string_view text) {
  // An empty view may hold a null pointer, which SQLite would store as NULL.
  const char* data = text.empty() ? "" : text.data();
  bind_result_ = std::max(bind_result_, sqlite3_bind_text64(statement_, index, data, text.size(),
                                                            SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}

Statement& Statement::BindBlob(int index, base::ByteSpan bytes) {
  const void* data = bytes.empty() ? static_cast<const void*>("") : bytes.data();
  bind_result_ = std::max(
      bind_result_, sqlite3_bind_blob64(statement_, index, data, bytes.size(), SQLITE_TRANSIENT));
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  if (bind_result_ != SQLITE_OK) {
    return connection_->StatusOf(bind_result_);
  }
  const int result = sqlite3_step(statement_);
  if (result == SQLITE_ROW) {
    return true;
  }
  if (result == SQLITE_DONE) {
    return false;
  }
  return connection_->StatusOf(result);
}

absl::Status Statement::Run() {
  return Step().status();
}

int64_t Statement::Int(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string Statement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return text == nullptr ? std::string() : std::string(text, static_cast<size_t>(size));
}

std::string Statement::Blob(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(bytes, static_cast<size_t>(size));
}

Connection::Connection(std::unique_ptr<sqlite3, SqliteClose> db, std::string path)
    : db_(std::move(db)), path_(std::move(path)) {}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const std::string& path, int flags) {
  sqlite3* raw = nullptr;
  // Database serialises the use of each connection, so SQLite's own mutexes are not needed.
  const int result = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<sqlite3, SqliteClose> db(raw);
  if (result != SQLITE_OK) {
    return SqliteStatus(result, path, raw == nullptr ? "out of memory" : sqlite3_errmsg(raw));
  }
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 5000);
  // A damaged or hostile file must not run what lies in its schema, nor be written to behind the
  // tables' backs.
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  auto connection = std::unique_ptr<Connection>(new Connection(std::move(db), path));
  if (absl::Status status = connection->Execute("PRAGMA foreign_keys=ON"); !status.ok()) {
    return status;
  }
  return connection;
}

absl::StatusOr<Statement> Connection::Prepare(const char* sql) {
  auto& cached = cache_[sql];
  if (cached == nullptr) {
    sqlite3_stmt* raw = nullptr;
    const int result =
        sqlite3_prepare_v3(db_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
    if (result != SQLITE_OK) {
      return StatusOf(result);
    }
    cached.reset(raw);
  }
  return Statement(*this, cached.get());
}

absl::Status Connection::Execute(const char* sql) {
  return StatusOf(sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr));
}

absl::Status Connection::Run(const char* sql) {
  absl::StatusOr<Statement> statement = Prepare(sql);
  return statement.ok() ? statement->Run() : statement.status();
}

absl::StatusOr<std::string> Connection::Ask(const char* sql) {
  absl::StatusOr<Statement> statement = Prepare(sql);
  if (!statement.ok()) {
    return statement.status();
  }
  absl::StatusOr<bool> row = statement->Step();
  if (!row.ok()) {
    return row.status();
  }
  return *row ? statement->Text(0) : std::string();
}

absl::Status Connection::CheckInPlace() {
  int moved = 0;
  if (sqlite3_file_control(db_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK) {
    return absl::OkStatus();  // in memory
  }
  // SQLite does not look after the log's name as it does after the database's.
  struct stat log {};
  const bool log_is_there = stat((path_ + "-wal").c_str(), &log) == 0;
  if (log_is_there && log_inode_ == 0) {
    log_inode_ = log.st_ino;
  }
  if (moved == 0 && log_is_there && log.st_ino == log_inode_) {
    return absl::OkStatus();
  }
  return absl::DataLossError(base::StrCat(
      path_, moved != 0 ? "" : "-wal",
      " was removed or replaced while the issuer ran: nothing more is issued; stop the "
      "issuer and restore a backup of the database"));
}

absl::Status Connection::StatusOf(int result) const {
  if (result == SQLITE_OK) {
    return absl::OkStatus();
  }
  return SqliteStatus(result, path_, sqlite3_errmsg(db_.get()));
}

Database::Database(std::unique_ptr<Connection> writer, std::unique_ptr<Connection> reader)
    : writer_(std::move(writer)), reader_(std::move(reader)) {}

absl::Status Database::Write(const Work& change) {
  if (absl::Status damage = Damage(); !damage.ok()) {
    return Count(damage);
  }
  Pending mine{&change, absl::OkStatus()};
  std::unique_lock lock(queue_mutex_);
  queue_.push_back(&mine);
  if (!committing_) {
    committing_ = true;
    mine.stage = Pending::Stage::kLeads;
  }
  mine.changed.wait(lock, [&mine] { return mine.stage != Pending::Stage::kQueued; });
  if (mine.stage == Pending::Stage::kLeads) {
    LeadGroup(lock);
  }
  return Count(mine.status);
}

// Commits all that has gathered, this thread's own among it, and passes the lead on.
void Database::LeadGroup(std::unique_lock<std::mutex>& lock) {
  std::vector<Pending*> group;
  while (!queue_.empty() && group.size() < kMaxGroup) {
    group.push_back(queue_.front());
    queue_.pop_front();
  }
  lock.unlock();
  CommitGroup(group);
  lock.lock();
  // Under the lock: a Pending is gone as soon as its thread can see that it is done.
  for (Pending* pending : group) {
    pending->stage = Pending::Stage::kDone;
    pending->changed.notify_one();
  }
  committing_ = !queue_.empty();
  if (committing_) {
    queue_.front()->stage = Pending::Stage::kLeads;
    queue_.front()->changed.notify_one();
  }
}

void Database::CommitGroup(std::span<Pending* const> group) {
  const std::lock_guard lock(writer_mutex_);
  absl::Status whole = writer_->Run("BEGIN IMMEDIATE");
  for (Pending* pending : group) {
    if (!whole.ok()) {
      break;
    }
    pending->status = RunOne(*pending->change);
    if (!writer_->in_transaction()) {
      // Some errors (disk full, I/O) make SQLite roll back the whole transaction by itself.
      whole = pending->status.ok() ? absl::UnavailableError("the transaction was rolled back")
                                   : pending->status;
    }
  }
  if (whole.ok()) {
    whole = writer_->Run("COMMIT");
  }
  if (whole.ok()) {
    whole = writer_->CheckInPlace();
  }
  if (writer_->in_transaction()) {
    writer_->Execute("ROLLBACK").IgnoreError();  // `whole` says already what went wrong
  }
  if (!whole.ok()) {
    for (Pending* pending : group) {
      if (pending->status.ok()) {
        pending->status = whole;
      }
    }
  }
}

absl::Status Database::RunOne(const Work& change) {
  absl::Status status = writer_->Run("SAVEPOINT one");
  if (!status.ok()) {
    return status;
  }
  status = change(*writer_);
  if (!status.ok() && writer_->in_transaction()) {
    const absl::Status undone = writer_->Execute("ROLLBACK TO one");
    if (!undone.ok()) {
      // What cannot be undone alone takes the whole group with it.
      writer_->Execute("ROLLBACK").IgnoreError();
      return undone;
    }
  }
  if (writer_->in_transaction()) {
    const absl::Status released = writer_->Run("RELEASE one");
    if (!released.ok()) {
      writer_->Execute("ROLLBACK").IgnoreError();
      return released;
    }
  }
  return status;
}

absl::Status Database::Read(const Work& query) {
  Connection& connection = reader_ != nullptr ? *reader_ : *writer_;
  const std::lock_guard lock(reader_ != nullptr ? reader_mutex_ : writer_mutex_);
  absl::Status status = connection.Run("BEGIN");
  if (!status.ok()) {
    return Count(status);
  }
  status = query(connection);
  const absl::Status ended = connection.Run(status.ok() ? "COMMIT" : "ROLLBACK");
  if (status.ok()) {
    status = ended;
  }
  return Count(status);
}

const absl::Status& Database::Count(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsDataLoss(status) || absl::IsInternal(status)) {
    errors_.fetch_add(1, std::memory_order_relaxed);
  }
  if (absl::IsDataLoss(status)) {
    const std::lock_guard lock(damage_mutex_);
    damage_.Update(status);  // the first one stays
  }
  return status;
}

absl::Status Database::Damage() {
  const std::lock_guard lock(damage_mutex_);
  return damage_;
}

}  // namespace postern::store
