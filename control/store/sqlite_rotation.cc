// SPDX-License-Identifier: Apache-2.0
// The steps of a CA's life: next, current, retired, withdrawn.
#include <utility>

#include "common/base/strings.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

// How many CAs of a state there are, and how many roots among them.
struct Count {
  int64_t all = 0;
  int64_t roots = 0;
};

absl::StatusOr<Count> CountCas(Connection& connection, std::string_view state) {
  absl::StatusOr<Statement> query = connection.Prepare(
      "SELECT count(*), count(CASE role WHEN 'root' THEN 1 END) FROM cas WHERE state = ?1");
  if (!query.ok()) {
    return query.status();
  }
  const absl::StatusOr<bool> row = query->Bind(1, state).Step();
  if (!row.ok()) {
    return row.status();
  }
  return Count{query->Int(0), query->Int(1)};
}

absl::Status DeleteCas(Connection& connection, std::string_view state) {
  absl::StatusOr<Statement> remove = connection.Prepare("DELETE FROM cas WHERE state = ?1");
  return remove.ok() ? remove->Bind(1, state).Run() : remove.status();
}

absl::StatusOr<WithdrawnCa> WithdrawnFromRow(const Statement& row) {
  WithdrawnCa ca{.id = row.Text(0)};
  const std::string role = row.Text(1);
  if (role != "root" && role != "intermediate") {
    return absl::DataLossError(
        base::StrCat("CA ", ca.id, ": the stored role is unknown: restore a backup"));
  }
  ca.role = role == "root" ? CaRole::kRoot : CaRole::kIntermediate;
  ca.certificate_der = row.Blob(2);
  ca.in_order = row.Int(3) != 0;
  ca.withdrawn_at = absl::FromUnixSeconds(row.Int(4));
  return ca;
}

}  // namespace

absl::Status SqliteCas::ActivateNextCas() {
  return database_.Write([](Connection& connection) {
    const absl::StatusOr<Count> next = CountCas(connection, "next");
    const absl::StatusOr<Count> retired = CountCas(connection, "retired");
    if (!next.ok() || !retired.ok()) {
      return next.ok() ? retired.status() : next.status();
    }
    if (next->all == 0) {
      return absl::FailedPreconditionError("no CA is prepared");
    }
    if (retired->all != 0) {
      return absl::FailedPreconditionError("a retired CA has not been withdrawn yet");
    }
    // In this order: the index allows one current CA of each role.
    absl::Status status = connection.Run(
        "UPDATE cas SET state = 'retired' WHERE state = 'current' AND role IN "
        "(SELECT role FROM cas WHERE state = 'next')");
    if (status.ok()) {
      status = connection.Run("UPDATE cas SET state = 'current' WHERE state = 'next'");
    }
    return status;
  });
}

absl::Status SqliteCas::DropNextCas() {
  return database_.Write([](Connection& connection) {
    const absl::StatusOr<Count> next = CountCas(connection, "next");
    if (!next.ok()) {
      return next.status();
    }
    absl::Status status = DeleteCas(connection, "next");
    return status.ok() && next->roots > 0 ? CountBundleChange(connection) : status;
  });
}

absl::Status SqliteCas::WithdrawRetiredCas(absl::Time now, bool in_order) {
  return database_.Write([now, in_order](Connection& connection) {
    const absl::StatusOr<Count> retired = CountCas(connection, "retired");
    if (!retired.ok()) {
      return retired.status();
    }
    absl::StatusOr<Statement> remember = connection.Prepare(
        "INSERT INTO withdrawn_cas (id, role, certificate, in_order, withdrawn_at) "
        "SELECT id, role, certificate, ?1, ?2 FROM cas WHERE state = 'retired' ORDER BY number");
    if (!remember.ok()) {
      return remember.status();
    }
    absl::Status status =
        remember->Bind(1, int64_t{in_order}).Bind(2, absl::ToUnixSeconds(now)).Run();
    if (status.ok()) {
      status = DeleteCas(connection, "retired");
    }
    return status.ok() && retired->roots > 0 ? CountBundleChange(connection) : status;
  });
}

absl::StatusOr<std::vector<WithdrawnCa>> SqliteCas::ListWithdrawnCas() {
  std::vector<WithdrawnCa> withdrawn;
  absl::Status status = database_.Read([&withdrawn](Connection& connection) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT id, role, certificate, in_order, withdrawn_at FROM withdrawn_cas "
        "ORDER BY number DESC LIMIT ?1");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Bind(1, int64_t{kMaxWithdrawnCas}).Step();
    for (; row.ok() && *row; row = query->Step()) {
      absl::StatusOr<WithdrawnCa> ca = WithdrawnFromRow(*query);
      if (!ca.ok()) {
        return ca.status();
      }
      withdrawn.push_back(*std::move(ca));
    }
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return withdrawn;
}

}  // namespace postern::store
