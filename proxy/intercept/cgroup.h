// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postern::intercept {

// A control group (version 2) as nft names it. A value.
struct Cgroup {
  std::string path;  // relative to /sys/fs/cgroup, where nft looks
  int level = 0;     // how deep below the root of the cgroup2 hierarchy

  // "system.slice/db.service", or the whole path below the mount point. NotFound: it is not there,
  // or no cgroup2 is mounted below /sys/fs/cgroup; InvalidArgument: no such name can be.
  static absl::StatusOr<Cgroup> Find(std::string_view text);
  auto operator<=>(const Cgroup&) const = default;
};

// The part without I/O: where /proc/self/mountinfo says that cgroup2 is mounted below
// /sys/fs/cgroup: "" for /sys/fs/cgroup itself, "unified" for a host with both versions. NotFound.
absl::StatusOr<std::string> Cgroup2Mount(std::string_view mountinfo);

}  // namespace postern::intercept
