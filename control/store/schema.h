// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "control/store/database.h"

// The tables. Internal to control/store.
namespace postern::store {

// Step i leads from schema version i to i + 1. Append-only: a step that was released is never
// edited.
std::span<const char* const> Migrations();

// Brings the database to the newest version, in one transaction. When it held an older one, a copy
// `path`.v<old>.<unix time>.bak is made and synced first (none for an empty `path`: in memory).
// FailedPrecondition: written by a newer release.
absl::Status Migrate(Connection& connection, std::span<const char* const> steps,
                     const std::string& path, absl::Time now);

}  // namespace postern::store
