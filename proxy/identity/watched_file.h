// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::identity {

// Says when a group of files should be read again. Events (net::FileWatch) are not trusted to come
// (they are missed on network and overlay file systems), so the files are looked at: Poll at each
// event, and once a second. It compares what stat says of each, through symlinks, and says yes at
// least every kAtLeast, because a change can leave all of that as it was. The reader compares
// contents.
class WatchedFiles {
 public:
  static constexpr absl::Duration kPollEvery = absl::Seconds(1);
  static constexpr absl::Duration kAtLeast = absl::Seconds(5);

  WatchedFiles(const base::Clock& clock, std::vector<std::string> paths);
  bool Poll();

 private:
  // Device, inode, size, modification and change time in nanoseconds; zeros: cannot be looked at.
  using Signature = std::array<int64_t, 5>;
  static Signature SignatureOf(const std::string& path);

  const base::Clock& clock_;
  const std::vector<std::string> paths_;
  std::vector<Signature> seen_;
  absl::Duration next_full_;
};

}  // namespace postern::identity
