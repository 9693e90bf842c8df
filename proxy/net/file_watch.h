// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::net {

// Events of files: calls back soon after something happened that can change what the paths name or
// hold: the file was written, replaced, removed, made, or a symlink on the way to it was swapped
// (as Kubernetes swaps a mounted secret). Watches directories (inotify), so the files need not be
// there.
//
// Events are a help and no promise: network and some overlay file systems have none, and
// directories above are not watched. Look at the files by a timer as well. Loop thread only; not to
// be destroyed inside its callback.
class FileWatch {
 public:
  // From the last event of a burst to the call: files that belong together are replaced together.
  static constexpr std::chrono::milliseconds kSettle{100};

  FileWatch(Loop& loop, std::vector<std::string> paths, std::function<void()> on_change);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  // Begins. ResourceExhausted or Internal: there will be no events, and why. Call once.
  absl::Status Start();

 private:
  struct Block;
  void OnSettled();

  Loop& loop_;
  const std::vector<std::string> paths_;
  const std::function<void()> on_change_;
  Timer settle_;
  Block* block_ = nullptr;  // null: no events
};

// Each (directory, name in it) whose change can change what `path` leads to: of every symlink on
// the way, of the file itself, or of the first part that is missing. For FileWatch and its tests.
std::set<std::pair<std::string, std::string>> PlacesOnTheWay(const std::string& path);

}  // namespace postern::net
