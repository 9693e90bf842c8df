// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {

absl::StatusOr<Entry> SqliteTokens::CreateToken(const base::Sha256Digest& token_sha256,
                                                const Entry& entry, absl::Time expires_at) {
  absl::StatusOr<std::string> entry_id = RandomId();
  absl::StatusOr<std::string> token_id = RandomId();
  if (!entry_id.ok() || !token_id.ok()) {
    return absl::InternalError("the random generator failed");
  }
  Entry stored = entry;
  stored.id = *entry_id;
  stored.created_at = absl::FromUnixSeconds(absl::ToUnixSeconds(clock_.Now()));
  stored.selectors.push_back(base::StrCat("join-token:", *token_id));
  std::sort(stored.selectors.begin(), stored.selectors.end());
  absl::Status status = database_.Write([&](Connection& connection) {
    absl::Status inserted = InsertEntry(connection, stored);
    if (!inserted.ok()) {
      return inserted;
    }
    absl::StatusOr<Statement> insert = connection.Prepare(
        "INSERT INTO tokens (sha256, token_id, entry_id, expires_at_ms) VALUES (?1, ?2, ?3, ?4)");
    if (!insert.ok()) {
      return insert.status();
    }
    return insert->BindBlob(1, token_sha256)
        .Bind(2, *token_id)
        .Bind(3, stored.id)
        .Bind(4, absl::ToUnixMillis(expires_at))
        .Run();
  });
  if (!status.ok()) {
    return status;
  }
  return stored;
}

absl::StatusOr<UsedToken> SqliteTokens::UseToken(const base::Sha256Digest& token_sha256,
                                                 absl::Time now) {
  UsedToken used;
  int64_t expires_at_ms = 0;
  absl::Status status = database_.Write([&](Connection& connection) {
    // One statement takes the row out and tells what it was: of many callers one gets it.
    absl::StatusOr<Statement> take = connection.Prepare(
        "DELETE FROM tokens WHERE sha256 = ?1 RETURNING token_id, entry_id, expires_at_ms");
    if (!take.ok()) {
      return take.status();
    }
    absl::StatusOr<bool> row = take->BindBlob(1, token_sha256).Step();
    if (!row.ok()) {
      return row.status();
    }
    if (!*row) {
      return absl::NotFoundError("no such token");
    }
    used.token_id = take->Text(0);
    used.entry_id = take->Text(1);
    expires_at_ms = take->Int(2);
    return take->Run();  // to its end, or the deletion would be undone with the statement
  });
  if (!status.ok()) {
    return status;
  }
  if (expires_at_ms <= absl::ToUnixMillis(now)) {
    return absl::DeadlineExceededError("the token has expired");
  }
  return used;
}

absl::StatusOr<uint64_t> SqliteTokens::DeleteExpiredTokens(absl::Time now) {
  uint64_t deleted = 0;
  absl::Status status = database_.Write([&](Connection& connection) {
    absl::StatusOr<Statement> remove =
        connection.Prepare("DELETE FROM tokens WHERE expires_at_ms <= ?1");
    absl::Status done =
        remove.ok() ? remove->Bind(1, absl::ToUnixMillis(now)).Run() : remove.status();
    deleted = done.ok() ? static_cast<uint64_t>(connection.changes()) : 0;
    return done;
  });
  if (!status.ok()) {
    return status;
  }
  return deleted;
}

}  // namespace postern::store
