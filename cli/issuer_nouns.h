// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/command.h"
#include "postern/v1/admin.pb.h"

namespace postern::cli {

// The flags that `entry create` and `token create` share: what a registration entry says.
struct EntryOptions {
  std::string spiffe_id, svid_ttl;
  std::vector<std::string> selectors;  // entry create alone
  std::string member_key;              // the same; a file
  std::vector<std::string> addresses;
  std::vector<uint16_t> ports;
  std::vector<std::string> services;
  bool publish_address = false;
};
void AddEntryOptions(CLI::App* command, EntryOptions* options);
// InvalidArgument names the flag.
absl::StatusOr<v1::Entry> ReadEntryOptions(const EntryOptions& options);

// One entry as JSON text, indented.
std::string EntryAsJson(const v1::Entry& entry);
// Unix seconds as "2026-01-31T12:00:00Z".
std::string TimeText(int64_t unix_seconds);
// "epoch.sequence"
std::string VersionText(const v1::Version& version);

void AddSocketOption(CLI::App* command, std::string* socket);

}  // namespace postern::cli
