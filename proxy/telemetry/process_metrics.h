// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace postern::telemetry {

// What the kernel tells of this process. A value; a field is missing where the kernel did not tell.
struct ProcessStats {
  std::optional<double> cpu_seconds;
  std::optional<double> start_time_seconds;  // since the epoch
  std::optional<uint64_t> resident_bytes;
  std::optional<uint64_t> virtual_bytes;
  std::optional<uint64_t> threads;
  std::optional<uint64_t> open_fds;
  std::optional<uint64_t> max_fds;
};

// Reads /proc/self and the limits. Any thread.
ProcessStats ReadProcessStats();

// The fields of /proc/self/stat (proc(5)); pure. `boot_time` is the btime of /proc/stat.
ProcessStats ParseProcStat(std::string_view stat, uint64_t ticks_per_second, uint64_t page_bytes,
                           std::optional<uint64_t> boot_time);

}  // namespace postern::telemetry
