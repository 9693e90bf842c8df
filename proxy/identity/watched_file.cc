// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/watched_file.h"

#include <sys/stat.h>

#include <utility>

namespace postern::identity {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * kNanosecondsPerSecond + int64_t{time.tv_nsec};
}

}  // namespace

WatchedFiles::WatchedFiles(const base::Clock& clock, std::vector<std::string> paths)
    : clock_(clock), paths_(std::move(paths)), next_full_(clock.SinceBoot()) {}

WatchedFiles::Signature WatchedFiles::SignatureOf(const std::string& path) {
  struct stat facts;
  if (stat(path.c_str(), &facts) != 0) {
    return {};
  }
  return {static_cast<int64_t>(facts.st_dev), static_cast<int64_t>(facts.st_ino),
          static_cast<int64_t>(facts.st_size), Nanoseconds(facts.st_mtim),
          Nanoseconds(facts.st_ctim)};
}

bool WatchedFiles::Poll() {
  std::vector<Signature> now;
  now.reserve(paths_.size());
  for (const std::string& path : paths_) {
    now.push_back(SignatureOf(path));
  }
  const bool overdue = clock_.SinceBoot() >= next_full_;
  const bool changed = now != seen_;
  seen_ = std::move(now);
  if (changed || overdue) {
    next_full_ = clock_.SinceBoot() + kAtLeast;
  }
  return changed || overdue;
}

}  // namespace postern::identity
