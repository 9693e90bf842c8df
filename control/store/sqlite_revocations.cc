// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/member_key.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

constexpr std::string_view kRevocationCounter = "revocation_changes";
// How long after its end a certificate whose entry is gone stays in the list: for peers whose
// clocks are behind.
constexpr absl::Duration kClockMargin = absl::Hours(1);
constexpr int64_t kNeverForgotten = 0;
constexpr std::string_view kSignerKey = "revocation_signer";

using x509::Revocation;
using x509::RevokedBy;

// The number of the list that this transaction makes. Counted from 1, for the empty one.
absl::StatusOr<int64_t> NextSequence(Connection& connection) {
  absl::Status status = AddToCounter(connection, kRevocationCounter, 1);
  if (!status.ok()) {
    return status;
  }
  absl::StatusOr<int64_t> changes = ReadCounter(connection, kRevocationCounter);
  return changes.ok() ? absl::StatusOr<int64_t>(*changes + 1) : changes.status();
}

absl::StatusOr<std::string> ReadSigner(Connection& connection) {
  absl::StatusOr<Statement> query = connection.Prepare("SELECT value FROM meta WHERE key = ?1");
  if (!query.ok()) {
    return query.status();
  }
  absl::StatusOr<bool> row = query->Bind(1, kSignerKey).Step();
  if (!row.ok()) {
    return row.status();
  }
  return *row ? query->Text(0) : std::string();
}

absl::StatusOr<Revocation> FromRow(const Statement& row) {
  const std::optional<RevokedBy> by = x509::ParseRevokedBy(row.Text(1));
  if (!by.has_value()) {
    return absl::DataLossError("a stored revocation is of an unknown kind: restore a backup");
  }
  const int64_t forget_at = row.Int(5);
  return Revocation{.by = *by,
                    .subject = row.Text(2),
                    .sequence = static_cast<uint64_t>(row.Int(0)),
                    .reason = row.Text(3),
                    .revoked_at = absl::FromUnixSeconds(row.Int(4)),
                    .forget_at = forget_at == kNeverForgotten ? absl::InfiniteFuture()
                                                              : absl::FromUnixSeconds(forget_at)};
}

absl::Status Collect(Statement& query, std::vector<Revocation>& revocations) {
  absl::StatusOr<bool> row = query.Step();
  for (; row.ok() && *row; row = query.Step()) {
    absl::StatusOr<Revocation> revocation = FromRow(query);
    if (!revocation.ok()) {
      return revocation.status();
    }
    revocations.push_back(*std::move(revocation));
  }
  return row.status();
}

#define POSTERN_REVOCATION_COLUMNS "sequence, kind, subject, reason, revoked_at, forget_at"

enum class IfRevoked : uint8_t { kReplace, kKeep };

absl::Status Insert(Connection& connection, const Revocation& revocation,
                    IfRevoked before = IfRevoked::kReplace) {
  absl::StatusOr<Statement> insert =
      connection.Prepare(before == IfRevoked::kReplace
                             ? "INSERT OR REPLACE INTO revocations (" POSTERN_REVOCATION_COLUMNS
                               ") VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
                             : "INSERT OR IGNORE INTO revocations (" POSTERN_REVOCATION_COLUMNS
                               ") VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
  if (!insert.ok()) {
    return insert.status();
  }
  return insert->Bind(1, static_cast<int64_t>(revocation.sequence))
      .Bind(2, x509::Token(revocation.by))
      .Bind(3, revocation.subject)
      .Bind(4, revocation.reason)
      .Bind(5, absl::ToUnixSeconds(revocation.revoked_at))
      .Bind(6, revocation.forget_at == absl::InfiniteFuture()
                   ? kNeverForgotten
                   : std::max<int64_t>(1, absl::ToUnixSeconds(revocation.forget_at)))
      .Run();
}

// Whose certificates are looked for.
struct IssuedFor {
  std::string entry_id, spiffe_id;
};

// The certificates that were issued for an entry and live at `now`, as what revokes them.
absl::Status AddLiving(Connection& connection, const IssuedFor& whose, std::string_view reason,
                       absl::Time now, std::vector<Revocation>& revocations) {
  absl::StatusOr<Statement> query = connection.Prepare(
      "SELECT serial, not_after FROM certificates "
      "WHERE spiffe_id = ?1 AND not_after > ?2 AND entry_id = ?3");
  if (!query.ok()) {
    return query.status();
  }
  query->Bind(1, whose.spiffe_id).Bind(2, absl::ToUnixSeconds(now)).Bind(3, whose.entry_id);
  absl::StatusOr<bool> row = query->Step();
  for (; row.ok() && *row; row = query->Step()) {
    const absl::StatusOr<std::string> serial =
        x509::CanonicalSubject(RevokedBy::kSerial, query->Text(0));
    if (!serial.ok()) {
      return absl::DataLossError("a stored serial does not parse: restore a backup");
    }
    revocations.push_back({.by = RevokedBy::kSerial,
                           .subject = *serial,
                           .reason = std::string(reason),
                           .revoked_at = now,
                           .forget_at = absl::FromUnixSeconds(query->Int(1)) + kClockMargin});
  }
  return row.status();
}

std::string SelectorOf(std::string_view key_sha256) {
  return base::StrCat(x509::kMemberKeySelector, key_sha256);
}

// The entries that a member's key attests to; one at most, as entries stand.
absl::StatusOr<std::vector<IssuedFor>> EnrolledWith(Connection& connection,
                                                    std::string_view key_sha256) {
  std::vector<IssuedFor> entries;
  absl::StatusOr<Statement> query = connection.Prepare(
      "SELECT e.id, e.spiffe_id FROM entry_selectors s JOIN entries e ON e.id = s.entry_id "
      "WHERE s.selector = ?1");
  if (!query.ok()) {
    return query.status();
  }
  const std::string selector = SelectorOf(key_sha256);
  absl::StatusOr<bool> row = query->Bind(1, selector).Step();
  for (; row.ok() && *row; row = query->Step()) {
    entries.push_back({query->Text(0), query->Text(1)});
  }
  if (!row.ok()) {
    return row.status();
  }
  return entries;
}

// What a revoked member's key has vouched for goes with it. A certificate that was revoked before
// stays so under its own number: lifting this one does not bring it back.
absl::Status RevokeVouchedFor(Connection& connection, const Revocation& key) {
  const absl::StatusOr<std::vector<IssuedFor>> entries = EnrolledWith(connection, key.subject);
  if (!entries.ok()) {
    return entries.status();
  }
  std::vector<Revocation> living;
  for (const IssuedFor& entry : *entries) {
    absl::Status read = AddLiving(connection, entry, key.reason, key.revoked_at, living);
    if (!read.ok()) {
      return read;
    }
  }
  absl::Status status;
  for (size_t i = 0; status.ok() && i < living.size(); ++i) {
    living[i].sequence = key.sequence;
    status = Insert(connection, living[i], IfRevoked::kKeep);
  }
  return status;
}

// Those that the key's entry was issued besides: each of them has a key of its own.
absl::Status CountVouchedFor(Connection& connection, std::string_view key_sha256, int64_t now,
                             NamedCertificates& named) {
  const absl::StatusOr<std::vector<IssuedFor>> entries = EnrolledWith(connection, key_sha256);
  if (!entries.ok()) {
    return entries.status();
  }
  std::vector<Revocation> living;
  for (const IssuedFor& entry : *entries) {
    named.enrolled = true;
    absl::Status read = AddLiving(connection, entry, "", absl::FromUnixSeconds(now), living);
    if (!read.ok()) {
      return read;
    }
  }
  named.living += living.size();
  for (const Revocation& one : living) {
    named.last_not_after = std::max(named.last_not_after, one.forget_at - kClockMargin);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RevokeCertificatesOf(Connection& connection, const Entry& entry, absl::Time now) {
  std::vector<Revocation> revocations;
  absl::Status status =
      AddLiving(connection, {entry.id, entry.spiffe_id.uri()},
                base::StrCat("entry ", entry.id, " was deleted"), now, revocations);
  if (!status.ok() || revocations.empty()) {
    return status;
  }
  const absl::StatusOr<int64_t> sequence = NextSequence(connection);
  status = sequence.status();
  for (size_t i = 0; status.ok() && i < revocations.size(); ++i) {
    revocations[i].sequence = static_cast<uint64_t>(*sequence);
    status = Insert(connection, revocations[i]);
  }
  return status;
}

absl::StatusOr<RevocationList> SqliteRevocations::ListRevocations() {
  RevocationList list;
  absl::Status status = database_.Read([this, &list](Connection& connection) {
    const absl::StatusOr<int64_t> changes = ReadCounter(connection, kRevocationCounter);
    if (!changes.ok()) {
      return changes.status();
    }
    list.version = {epoch_, static_cast<uint64_t>(*changes) + 1};
    absl::StatusOr<Statement> query = connection.Prepare("SELECT " POSTERN_REVOCATION_COLUMNS
                                                         " FROM revocations ORDER BY number");
    return query.ok() ? Collect(*query, list.revocations) : query.status();
  });
  if (!status.ok()) {
    return status;
  }
  return list;
}

absl::StatusOr<Revocation> SqliteRevocations::Revoke(const Revocation& wanted) {
  Revocation stored = wanted;
  stored.revoked_at = absl::FromUnixSeconds(absl::ToUnixSeconds(clock_.Now()));
  absl::Status status = database_.Write([&stored](Connection& connection) {
    const absl::StatusOr<int64_t> sequence = NextSequence(connection);
    if (!sequence.ok()) {
      return sequence.status();
    }
    stored.sequence = static_cast<uint64_t>(*sequence);
    absl::Status inserted = Insert(connection, stored);
    return inserted.ok() && stored.by == RevokedBy::kKey ? RevokeVouchedFor(connection, stored)
                                                         : inserted;
  });
  if (!status.ok()) {
    return status;
  }
  return stored;
}

absl::StatusOr<bool> SqliteRevocations::IsRevoked(RevokedBy by, std::string_view subject) {
  bool revoked = false;
  absl::Status status = database_.Read([&revoked, by, subject](Connection& connection) {
    absl::StatusOr<Statement> query =
        connection.Prepare("SELECT 1 FROM revocations WHERE kind = ?1 AND subject = ?2");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Bind(1, x509::Token(by)).Bind(2, subject).Step();
    revoked = row.ok() && *row;
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return revoked;
}

absl::StatusOr<std::vector<Revocation>> SqliteRevocations::Lift(uint64_t sequence) {
  std::vector<Revocation> lifted;
  absl::Status status = database_.Write([&lifted, sequence](Connection& connection) {
    lifted.clear();
    {
      absl::StatusOr<Statement> query = connection.Prepare("SELECT " POSTERN_REVOCATION_COLUMNS
                                                           " FROM revocations WHERE sequence = ?1");
      if (!query.ok()) {
        return query.status();
      }
      query->Bind(1, static_cast<int64_t>(sequence));
      if (absl::Status read = Collect(*query, lifted); !read.ok()) {
        return read;
      }
    }
    if (lifted.empty()) {
      return absl::NotFoundError(base::StrCat(
          "nothing is revoked under the number ", sequence,
          " (it was lifted, or what it named has expired): see `postern revoke list`"));
    }
    absl::StatusOr<Statement> remove =
        connection.Prepare("DELETE FROM revocations WHERE sequence = ?1");
    absl::Status removed =
        remove.ok() ? remove->Bind(1, static_cast<int64_t>(sequence)).Run() : remove.status();
    return removed.ok() ? NextSequence(connection).status() : removed;
  });
  if (!status.ok()) {
    return status;
  }
  return lifted;
}

absl::StatusOr<uint64_t> SqliteRevocations::Forget(absl::Time now) {
  uint64_t forgotten = 0;
  // First a look: the usual case is that there is nothing, and then nothing is written.
  bool due = false;
  absl::Status status = database_.Read([&due, now](Connection& connection) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT 1 FROM revocations WHERE forget_at > 0 AND forget_at <= ?1 LIMIT 1");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Bind(1, absl::ToUnixSeconds(now)).Step();
    due = row.ok() && *row;
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  if (!due) {
    return 0;
  }
  status = database_.Write([&forgotten, now](Connection& connection) {
    absl::StatusOr<Statement> remove =
        connection.Prepare("DELETE FROM revocations WHERE forget_at > 0 AND forget_at <= ?1");
    absl::Status removed =
        remove.ok() ? remove->Bind(1, absl::ToUnixSeconds(now)).Run() : remove.status();
    forgotten = removed.ok() ? static_cast<uint64_t>(connection.changes()) : 0;
    return removed.ok() && forgotten > 0 ? NextSequence(connection).status() : removed;
  });
  if (!status.ok()) {
    return status;
  }
  return forgotten;
}

absl::StatusOr<bool> SqliteRevocations::SetSigner(std::string_view ca_id) {
  const absl::StatusOr<std::string> before =
      database_.ReadValue([](Connection& connection) { return ReadSigner(connection); });
  if (!before.ok()) {
    return before.status();
  }
  if (*before == ca_id) {
    return false;
  }
  bool renumbered = false;
  const absl::Status status = database_.Write([&renumbered, ca_id](Connection& connection) {
    const absl::StatusOr<std::string> signer = ReadSigner(connection);
    if (!signer.ok()) {
      return signer.status();
    }
    absl::StatusOr<Statement> set = connection.Prepare(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) "
        "ON CONFLICT (key) DO UPDATE SET value = ?2");
    absl::Status done = set.ok() ? set->Bind(1, kSignerKey).Bind(2, ca_id).Run() : set.status();
    renumbered = done.ok() && !signer->empty();
    return renumbered ? NextSequence(connection).status() : done;
  });
  if (!status.ok()) {
    return status;
  }
  return renumbered;
}

absl::StatusOr<NamedCertificates> SqliteRevocations::CountNamed(RevokedBy by,
                                                                std::string_view subject) {
  NamedCertificates named;
  if (by == RevokedBy::kIssuer) {
    return named;
  }
  const int64_t now = absl::ToUnixSeconds(clock_.Now());
  const absl::StatusOr<std::string> key =
      by == RevokedBy::kKey ? base::FromHex(subject) : std::string();
  if (!key.ok()) {
    return key.status();
  }
  absl::Status status = database_.Read([&](Connection& connection) {
    // A serial stands in the log with the leading zeros that its bytes have.
    absl::StatusOr<Statement> query = connection.Prepare(
        by == RevokedBy::kSpiffeId ? "SELECT COUNT(*), MAX(not_after) FROM certificates "
                                     "WHERE spiffe_id = ?2 AND not_after > ?1"
        : by == RevokedBy::kSerial ? "SELECT COUNT(*), MAX(not_after) FROM certificates "
                                     "WHERE serial IN (?2, '0' || ?2) AND not_after > ?1"
                                   : "SELECT COUNT(*), MAX(not_after) FROM certificates "
                                     "WHERE key_sha256 = ?2 AND not_after > ?1");
    if (!query.ok()) {
      return query.status();
    }
    query->Bind(1, now);
    if (by == RevokedBy::kKey) {
      query->BindBlob(2, base::AsBytes(*key));
    } else {
      query->Bind(2, subject);
    }
    absl::StatusOr<bool> row = query->Step();
    if (row.ok() && *row && query->Int(0) > 0) {
      named.living = static_cast<uint64_t>(query->Int(0));
      named.last_not_after = absl::FromUnixSeconds(query->Int(1));
    }
    return row.ok() && by == RevokedBy::kKey ? CountVouchedFor(connection, subject, now, named)
                                             : row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return named;
}

}  // namespace postern::store
