// SPDX-License-Identifier: Apache-2.0
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/strings.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

// Selectors, addresses, ports and services hold no control bytes, so a newline parts them.
constexpr char kSeparator = '\n';

#define POSTERN_ENTRY_COLUMNS \
  "id, spiffe_id, selectors, addresses, publish_source, ports, svid_ttl_ms, created_at, services"

absl::Status Damaged(std::string_view id, std::string_view field) {
  return absl::DataLossError(
      base::StrCat("entry ", id, ": the stored ", field, " does not parse: restore a backup"));
}

absl::StatusOr<Entry> EntryFromRow(const Statement& row) {
  const std::string id = row.Text(0);
  absl::StatusOr<x509::SpiffeId> spiffe_id = x509::SpiffeId::Parse(row.Text(1));
  if (!spiffe_id.ok()) {
    return Damaged(id, "SPIFFE ID");
  }
  Entry entry{.id = id, .spiffe_id = *std::move(spiffe_id)};
  entry.selectors = absl::StrSplit(row.Text(2), kSeparator, absl::SkipEmpty());
  const std::string addresses = row.Text(3);
  for (absl::string_view text : absl::StrSplit(addresses, kSeparator, absl::SkipEmpty())) {
    absl::StatusOr<base::Cidr> cidr = base::Cidr::Parse(base::ToStd(text));
    if (!cidr.ok()) {
      return Damaged(id, "address");
    }
    entry.allowed_addresses.push_back(*cidr);
  }
  entry.publish_connection_address = row.Int(4) != 0;
  std::optional<std::vector<uint16_t>> ports = SplitPorts(row.Text(5));
  if (!ports.has_value()) {
    return Damaged(id, "port");
  }
  entry.ports = *std::move(ports);
  entry.svid_ttl = absl::Milliseconds(row.Int(6));
  entry.created_at = absl::FromUnixSeconds(row.Int(7));
  const std::string services = row.Text(8);
  for (absl::string_view text : absl::StrSplit(services, kSeparator, absl::SkipEmpty())) {
    absl::StatusOr<base::ServiceAddress> service = base::ServiceAddress::Parse(base::ToStd(text));
    if (!service.ok()) {
      return Damaged(id, "service");
    }
    entry.services.push_back(*service);
  }
  return entry;
}

// Appends every row that `query` still gives.
absl::Status Collect(Statement& query, std::vector<Entry>& entries) {
  while (true) {
    absl::StatusOr<bool> row = query.Step();
    if (!row.ok()) {
      return row.status();
    }
    if (!*row) {
      return absl::OkStatus();
    }
    absl::StatusOr<Entry> entry = EntryFromRow(query);
    if (!entry.ok()) {
      return entry.status();
    }
    entries.push_back(*std::move(entry));
  }
}

absl::StatusOr<Entry> ReadEntry(Connection& connection, std::string_view id) {
  absl::StatusOr<Statement> query =
      connection.Prepare("SELECT " POSTERN_ENTRY_COLUMNS " FROM entries WHERE id = ?1");
  if (!query.ok()) {
    return query.status();
  }
  query->Bind(1, id);
  std::vector<Entry> found;
  if (absl::Status status = Collect(*query, found); !status.ok()) {
    return status;
  }
  if (found.empty()) {
    return absl::NotFoundError("no such entry");
  }
  return std::move(found.front());
}

// The ids of the entries all of whose selectors were given.
absl::StatusOr<std::vector<std::string>> MatchingIds(Connection& connection,
                                                     const std::vector<std::string>& selectors) {
  std::map<std::string, int64_t> missing;  // entry id -> selectors not met yet
  for (const std::string& selector : selectors) {
    absl::StatusOr<Statement> query = connection.Prepare(
        "SELECT e.id, e.selector_count FROM entry_selectors s "
        "JOIN entries e ON e.id = s.entry_id WHERE s.selector = ?1");
    if (!query.ok()) {
      return query.status();
    }
    query->Bind(1, selector);
    absl::StatusOr<bool> row = query->Step();
    for (; row.ok() && *row; row = query->Step()) {
      missing.try_emplace(query->Text(0), query->Int(1)).first->second -= 1;
    }
    if (!row.ok()) {
      return row.status();
    }
  }
  std::vector<std::string> ids;
  for (const auto& [id, count] : missing) {
    if (count == 0) {
      ids.push_back(id);
    }
  }
  return ids;
}

}  // namespace

absl::StatusOr<std::string> RandomId() {
  std::array<uint8_t, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    return absl::InternalError("the random generator failed");
  }
  return base::ToHex(bytes);
}

std::string JoinPorts(const std::vector<uint16_t>& ports) {
  return absl::StrJoin(ports, "\n");
}

std::optional<std::vector<uint16_t>> SplitPorts(std::string_view text) {
  std::vector<uint16_t> ports;
  for (absl::string_view one : absl::StrSplit(base::ToAbsl(text), kSeparator, absl::SkipEmpty())) {
    uint32_t port = 0;
    if (!absl::SimpleAtoi(one, &port) || port > 65535) {
      return std::nullopt;
    }
    ports.push_back(static_cast<uint16_t>(port));
  }
  return ports;
}

absl::Status InsertEntry(Connection& connection, const Entry& entry) {
  if (entry.selectors.empty()) {
    return absl::InvalidArgumentError("an entry needs at least one selector");
  }
  const std::string addresses =
      absl::StrJoin(entry.allowed_addresses, "\n",
                    [](std::string* out, const base::Cidr& cidr) { out->append(cidr.ToString()); });
  const std::string services = absl::StrJoin(
      entry.services, "\n", [](std::string* out, const base::ServiceAddress& service) {
        out->append(service.ToString());
      });
  absl::StatusOr<Statement> insert =
      connection.Prepare("INSERT INTO entries (" POSTERN_ENTRY_COLUMNS
                         ", selector_count) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
  if (!insert.ok()) {
    return insert.status();
  }
  insert->Bind(1, entry.id)
      .Bind(2, entry.spiffe_id.uri())
      .Bind(3, absl::StrJoin(entry.selectors, "\n"))
      .Bind(4, addresses)
      .Bind(5, int64_t{entry.publish_connection_address ? 1 : 0})
      .Bind(6, JoinPorts(entry.ports))
      .Bind(7, absl::ToInt64Milliseconds(entry.svid_ttl))
      .Bind(8, absl::ToUnixSeconds(entry.created_at))
      .Bind(9, services)
      .Bind(10, static_cast<int64_t>(entry.selectors.size()));
  absl::Status status = insert->Run();
  if (absl::IsAlreadyExists(status)) {
    return absl::AlreadyExistsError("an entry with just these selectors exists already");
  }
  for (size_t i = 0; status.ok() && i < entry.selectors.size(); ++i) {
    absl::StatusOr<Statement> selector =
        connection.Prepare("INSERT INTO entry_selectors (selector, entry_id) VALUES (?1, ?2)");
    status = selector.ok() ? selector->Bind(1, entry.selectors[i]).Bind(2, entry.id).Run()
                           : selector.status();
  }
  return status;
}

absl::StatusOr<Entry> SqliteEntries::CreateEntry(const Entry& entry) {
  absl::StatusOr<std::string> id = RandomId();
  if (!id.ok()) {
    return id.status();
  }
  Entry stored = entry;
  stored.id = *id;
  stored.created_at = absl::FromUnixSeconds(absl::ToUnixSeconds(clock_.Now()));
  absl::Status status = database_.Write(
      [&stored](Connection& connection) { return InsertEntry(connection, stored); });
  if (!status.ok()) {
    return status;
  }
  return stored;
}

absl::StatusOr<std::vector<Entry>> SqliteEntries::ListEntries(std::string_view spiffe_id) {
  std::vector<Entry> entries;
  absl::Status status = database_.Read([&entries, spiffe_id](Connection& connection) {
    absl::StatusOr<Statement> query =
        connection.Prepare("SELECT " POSTERN_ENTRY_COLUMNS
                           " FROM entries WHERE ?1 = '' OR spiffe_id = ?1 ORDER BY number");
    if (!query.ok()) {
      return query.status();
    }
    query->Bind(1, spiffe_id);
    return Collect(*query, entries);
  });
  if (!status.ok()) {
    return status;
  }
  return entries;
}

absl::StatusOr<Entry> SqliteEntries::GetEntry(std::string_view id) {
  return database_.ReadValue([id](Connection& connection) { return ReadEntry(connection, id); });
}

absl::StatusOr<std::vector<Entry>> SqliteEntries::MatchEntries(
    const std::vector<std::string>& selectors) {
  std::vector<std::string> distinct = selectors;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<Entry> entries;
  absl::Status status = database_.Read([&entries, &distinct](Connection& connection) {
    absl::StatusOr<std::vector<std::string>> ids = MatchingIds(connection, distinct);
    if (!ids.ok()) {
      return ids.status();
    }
    for (const std::string& id : *ids) {
      absl::StatusOr<Entry> entry = ReadEntry(connection, id);
      if (!entry.ok()) {
        return entry.status();
      }
      entries.push_back(*std::move(entry));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) {
    return status;
  }
  return entries;
}

absl::Status SqliteEntries::DeleteEntry(std::string_view id) {
  return database_.Write([this, id](Connection& connection) {
    const absl::StatusOr<Entry> entry = ReadEntry(connection, id);
    if (!entry.ok()) {
      return entry.status();
    }
    absl::Status status = RevokeCertificatesOf(connection, *entry, clock_.Now());
    if (!status.ok()) {
      return status;
    }
    absl::StatusOr<Statement> remove = connection.Prepare("DELETE FROM entries WHERE id = ?1");
    return remove.ok() ? remove->Bind(1, id).Run() : remove.status();
  });
}

}  // namespace postern::store
