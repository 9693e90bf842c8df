// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "common/base/strings.h"
#include "control/store/sqlite_nouns.h"

namespace postern::store {
namespace {

absl::StatusOr<Speaker> SpeakerFromRow(const Statement& row) {
  Speaker speaker{.entry_id = row.Text(0)};
  const absl::StatusOr<base::IpAddress> source = base::IpAddress::Parse(row.Text(1));
  std::optional<std::vector<uint16_t>> ports = SplitPorts(row.Text(2));
  if (!source.ok() || !ports.has_value()) {
    return absl::DataLossError(base::StrCat("a proxy of entry ", speaker.entry_id,
                                            " is stored wrongly: restore a backup"));
  }
  speaker.source = *source;
  speaker.ports = *std::move(ports);
  return speaker;
}

absl::Status Forget(Connection& connection, const Speaker& speaker) {
  absl::StatusOr<Statement> remove =
      connection.Prepare("DELETE FROM speakers WHERE entry_id = ?1 AND source = ?2");
  return remove.ok() ? remove->Bind(1, speaker.entry_id).Bind(2, speaker.source.ToString()).Run()
                     : remove.status();
}

absl::Status Keep(Connection& connection, const Speaker& speaker) {
  absl::StatusOr<Statement> insert = connection.Prepare(
      "INSERT INTO speakers (entry_id, source, ports) SELECT id, ?2, ?3 FROM entries WHERE id = ?1 "
      "ON CONFLICT (entry_id, source) DO UPDATE SET ports = excluded.ports");
  return insert.ok() ? insert->Bind(1, speaker.entry_id)
                           .Bind(2, speaker.source.ToString())
                           .Bind(3, JoinPorts(speaker.ports))
                           .Run()
                     : insert.status();
}

}  // namespace

absl::StatusOr<std::vector<Speaker>> SqliteSpeakers::ListSpeakers() {
  std::vector<Speaker> speakers;
  absl::Status status = database_.Read([&speakers](Connection& connection) {
    absl::StatusOr<Statement> query =
        connection.Prepare("SELECT entry_id, source, ports FROM speakers");
    if (!query.ok()) {
      return query.status();
    }
    absl::StatusOr<bool> row = query->Step();
    for (; row.ok() && *row; row = query->Step()) {
      absl::StatusOr<Speaker> speaker = SpeakerFromRow(*query);
      if (!speaker.ok()) {
        return speaker.status();
      }
      speakers.push_back(*std::move(speaker));
    }
    return row.status();
  });
  if (!status.ok()) {
    return status;
  }
  return speakers;
}

absl::Status SqliteSpeakers::UpdateSpeakers(const std::vector<Speaker>& present,
                                            const std::vector<Speaker>& gone) {
  return database_.Write([&present, &gone](Connection& connection) {
    absl::Status status;
    for (size_t i = 0; status.ok() && i < gone.size(); ++i) {
      status = Forget(connection, gone[i]);
    }
    for (size_t i = 0; status.ok() && i < present.size(); ++i) {
      status = Keep(connection, present[i]);
    }
    return status;
  });
}

}  // namespace postern::store
