// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::telemetry {
namespace {

// procfs files have no size: read to the end.
std::string ReadProcFile(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::optional<uint64_t> BootTime() {
  const std::string stat = ReadProcFile("/proc/stat");
  const size_t at = stat.find("\nbtime ");
  if (at == std::string::npos) {
    return std::nullopt;
  }
  const size_t begin = at + std::string_view("\nbtime ").size();
  return base::ParseNumber<uint64_t>(
      std::string_view(stat).substr(begin, stat.find('\n', begin) - begin));
}

std::optional<uint64_t> CountOpenFds() {
  struct CloseDir {
    void operator()(DIR* dir) const { closedir(dir); }
  };
  const std::unique_ptr<DIR, CloseDir> dir(opendir("/proc/self/fd"));
  if (dir == nullptr) {
    return std::nullopt;
  }
  uint64_t entries = 0;
  while (const dirent* entry = readdir(dir.get())) {
    entries += entry->d_name[0] != '.' ? 1 : 0;
  }
  return entries > 0 ? entries - 1 : 0;  // without the one that lists them
}

}  // namespace

ProcessStats ParseProcStat(std::string_view stat, uint64_t ticks_per_second, uint64_t page_bytes,
                           std::optional<uint64_t> boot_time) {
  ProcessStats stats;
  // The second field is the program's name in parentheses and may itself hold ") ".
  const size_t name_end = stat.rfind(") ");
  if (name_end == std::string_view::npos || ticks_per_second == 0) {
    return stats;
  }
  const std::vector<std::string_view> rest = base::Split(stat.substr(name_end + 2), ' ');
  const auto field = [&rest](size_t number) -> std::optional<uint64_t> {  // counted as in proc(5)
    if (number < 3 || number - 3 >= rest.size()) {
      return std::nullopt;
    }
    return base::ParseNumber<uint64_t>(rest[number - 3]);
  };
  const auto ticks = static_cast<double>(ticks_per_second);
  const auto user = field(14);
  const auto system = field(15);
  if (user && system) {
    stats.cpu_seconds = static_cast<double>(*user + *system) / ticks;
  }
  stats.threads = field(20);
  const auto started = field(22);
  if (started && boot_time) {
    stats.start_time_seconds =
        static_cast<double>(*boot_time) + static_cast<double>(*started) / ticks;
  }
  stats.virtual_bytes = field(23);
  if (const auto pages = field(24)) {
    stats.resident_bytes = *pages * page_bytes;
  }
  return stats;
}

ProcessStats ReadProcessStats() {
  ProcessStats stats =
      ParseProcStat(ReadProcFile("/proc/self/stat"), static_cast<uint64_t>(sysconf(_SC_CLK_TCK)),
                    static_cast<uint64_t>(sysconf(_SC_PAGESIZE)), BootTime());
  stats.open_fds = CountOpenFds();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    stats.max_fds = limit.rlim_cur;
  }
  return stats;
}

}  // namespace postern::telemetry
