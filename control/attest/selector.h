// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

// Selectors: facts about a workload, as canonical text, compared byte for byte.
namespace postern::attest {

inline constexpr size_t kMaxSelectorBytes = 4096;

std::string JoinTokenSelector(std::string_view token_id);  // join-token:ID
std::string UnixUidSelector(uid_t uid);                    // unix:uid:1000
std::string UnixGidSelector(gid_t gid);                    // unix:gid:1000
std::string UnixPathSelector(std::string_view path);       // unix:path:/usr/bin/x

// The canonical text of a selector that an operator wrote. InvalidArgument: an unknown kind (known
// are join-token, unix:uid, unix:gid, unix:path, key:sha256), a number that is none or is out of
// range, a path that is not absolute, or too long.
absl::StatusOr<std::string> ParseSelector(std::string_view text);

}  // namespace postern::attest
