// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/cgroup.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::intercept {
namespace {

constexpr std::string_view kRoot = "/sys/fs/cgroup";  // where nft looks, and nowhere else

std::vector<std::string> Split(std::string_view text, char by) {
  std::vector<std::string> parts;
  std::istringstream stream{std::string(text)};
  for (std::string part; std::getline(stream, part, by);) {
    if (!part.empty()) {
      parts.push_back(part);
    }
  }
  return parts;
}

std::string WithoutPrefix(std::string_view text, std::string_view prefix) {
  return std::string(text.starts_with(prefix) ? text.substr(prefix.size()) : text);
}

}  // namespace

absl::StatusOr<std::string> Cgroup2Mount(std::string_view mountinfo) {
  for (const std::string& line : Split(mountinfo, '\n')) {
    // 36 35 98:0 ROOT MOUNTPOINT OPTIONS [tags] - TYPE SOURCE ...
    const std::vector<std::string> words = Split(line, ' ');
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 5 || dash == words.end() || dash + 1 == words.end() ||
        *(dash + 1) != "cgroup2") {
      continue;
    }
    const std::string& point = words[4];
    if (point == kRoot) {
      return std::string();
    }
    if (point.starts_with(kRoot) && point[kRoot.size()] == '/') {
      return point.substr(kRoot.size() + 1);
    }
  }
  return absl::NotFoundError(
      "no cgroup2 is mounted below /sys/fs/cgroup, so that nft cannot match control groups");
}

absl::StatusOr<Cgroup> Cgroup::Find(std::string_view text) {
  std::ostringstream content;
  content << std::ifstream("/proc/self/mountinfo").rdbuf();
  const absl::StatusOr<std::string> mount = Cgroup2Mount(content.str());
  if (!mount.ok()) {
    return mount.status();
  }
  const std::string above = mount->empty() ? std::string(kRoot) : base::StrCat(kRoot, "/", *mount);
  const std::vector<std::string> parts = Split(WithoutPrefix(text, above), '/');
  std::string below;
  for (const std::string& part : parts) {
    const bool odd = part == "." || part == ".." || part.find_first_of("\"\\\n") != part.npos;
    if (odd) {
      return absl::InvalidArgumentError("is no name of a control group");
    }
    below += below.empty() ? part : base::StrCat("/", part);
  }
  if (parts.empty()) {
    return absl::InvalidArgumentError("names the root, which everybody is in");
  }
  struct stat found {};
  const std::string path = base::StrCat(above, "/", below);
  if (stat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) {
    return absl::NotFoundError(
        base::StrCat("is no control group now (", path,
                     "); its unit must have been started, or name the slice, which stays"));
  }
  return Cgroup{mount->empty() ? below : base::StrCat(*mount, "/", below),
                static_cast<int>(parts.size())};
}

}  // namespace postern::intercept
