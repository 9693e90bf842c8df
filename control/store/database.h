// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sqlite3.h>
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"

// SQLite, as far as this module needs it. Internal to control/store.
namespace postern::store {

struct SqliteClose {
  void operator()(sqlite3* db) const noexcept { sqlite3_close_v2(db); }
};
struct SqliteFinalize {
  void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
};

// The Status of an SQLite result, by the contract of store.h. `what` names the database.
absl::Status SqliteStatus(int result, std::string_view what, std::string_view message);

class Connection;

// One use of a prepared statement: bind, step, read columns; goes back to the connection's cache
// when destroyed. A failed Bind shows at the next Step. Columns count from 0, parameters from 1.
class Statement {
 public:
  Statement(Connection& connection, sqlite3_stmt* statement);
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  Statement& Bind(int index, int64_t value);
  Statement& Bind(int index, std::string_view text);
  Statement& BindBlob(int index, base::ByteSpan bytes);

  absl::StatusOr<bool> Step();  // true: a row is there; AlreadyExists: a unique index forbids it
  absl::Status Run();           // Step, for what gives no rows

  int64_t Int(int column) const;
  std::string Text(int column) const;
  std::string Blob(int column) const;

 private:
  Connection* connection_;
  sqlite3_stmt* statement_;  // owned by the connection's cache
  int bind_result_ = SQLITE_OK;
};

// One connection; used by one thread at a time (Database sees to it).
class Connection {
 public:
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const std::string& path, int flags);

  // `sql` is a literal: it is never built from data.
  absl::StatusOr<Statement> Prepare(const char* sql);
  absl::Status Execute(const char* sql);  // no parameters, no rows
  absl::Status Run(const char* sql);      // the same, prepared once and kept
  // The first column of the only row of a PRAGMA.
  absl::StatusOr<std::string> Ask(const char* sql);

  // Whether what was committed is still where the next start will look for it: SQLite goes on
  // writing into files that were removed. DataLoss: a file is gone, or another stands in its place.
  absl::Status CheckInPlace();

  absl::Status StatusOf(int result) const;
  int64_t changes() const { return sqlite3_changes64(db_.get()); }
  bool in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }
  sqlite3* handle() const { return db_.get(); }

 private:
  Connection(std::unique_ptr<sqlite3, SqliteClose> db, std::string path);
  std::unique_ptr<sqlite3, SqliteClose> db_;
  std::string path_;
  ino_t log_inode_ = 0;  // of the write-ahead log; 0: not looked at yet
  absl::flat_hash_map<std::string, std::unique_ptr<sqlite3_stmt, SqliteFinalize>> cache_;
};

// A writing and a reading connection to one database. Writes are committed in groups: whoever comes
// while a commit waits for the disk goes into the next one, and all of a group share its sync. Each
// answers only after that. Thread-safe.
class Database {
 public:
  using Work = std::function<absl::Status(Connection&)>;

  // `reader` null (in memory): reads go through the writer.
  Database(std::unique_ptr<Connection> writer, std::unique_ptr<Connection> reader);

  // Runs `change` inside a transaction; when it fails, nothing of it remains, and others of the
  // group are not disturbed. What it returns, or why the commit failed. Values that it hands out
  // may be used only if this returned OK.
  absl::Status Write(const Work& change);
  // Runs `query` on one consistent state.
  absl::Status Read(const Work& query);

  // The same for work that gives a value: StatusOr<T>(Connection&).
  template <typename Change>
  std::invoke_result_t<Change, Connection&> WriteValue(const Change& change) {
    std::invoke_result_t<Change, Connection&> value = absl::UnknownError("not done");
    absl::Status status = Write([&change, &value](Connection& connection) {
      value = change(connection);
      return value.status();
    });
    return status.ok() ? std::move(value) : std::move(status);
  }
  template <typename Query>
  std::invoke_result_t<Query, Connection&> ReadValue(const Query& query) {
    std::invoke_result_t<Query, Connection&> value = absl::UnknownError("not asked");
    absl::Status status = Read([&query, &value](Connection& connection) {
      value = query(connection);
      return value.status();
    });
    return status.ok() ? std::move(value) : std::move(status);
  }

  uint64_t error_count() const { return errors_.load(std::memory_order_relaxed); }

 private:
  struct Pending {
    const Work* change;
    absl::Status status;
    // Each waits by itself: who waits together is woken together, and most of them in vain.
    std::condition_variable changed = {};
    enum class Stage : uint8_t { kQueued, kLeads, kDone } stage = Stage::kQueued;
  };
  void LeadGroup(std::unique_lock<std::mutex>& lock);
  void CommitGroup(std::span<Pending* const> group);
  absl::Status RunOne(const Work& change);
  const absl::Status& Count(const absl::Status& status);
  absl::Status Damage();

  std::mutex queue_mutex_;
  std::deque<Pending*> queue_;  // guarded by queue_mutex_
  bool committing_ = false;     // guarded by queue_mutex_: one thread at a time leads a group

  std::mutex writer_mutex_;
  std::mutex reader_mutex_;
  const std::unique_ptr<Connection> writer_;
  const std::unique_ptr<Connection> reader_;
  std::atomic<uint64_t> errors_{0};
  std::mutex damage_mutex_;
  absl::Status damage_;  // guarded by damage_mutex_: the first DataLoss that was seen
};

}  // namespace postern::store
