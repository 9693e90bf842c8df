// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "proxy/net/loop.h"

namespace postern::net {

// Calls back while a descriptor is readable or at its end, on its loop's thread. The descriptor is
// somebody else's, non-blocking, and outlives this. May be destroyed inside its own callback.
class Readable {
 public:
  // Unavailable: the system's error.
  static absl::StatusOr<std::unique_ptr<Readable>> Watch(Loop& loop, int fd,
                                                         std::function<void()> callback);
  ~Readable();
  Readable(const Readable&) = delete;
  Readable& operator=(const Readable&) = delete;

 private:
  struct Block;
  explicit Readable(Block* block) : block_(block) {}
  Block* block_;  // owned by libuv until its close callback; see Stream
};

}  // namespace postern::net
