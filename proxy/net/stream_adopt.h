// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "proxy/net/loop.h"
#include "proxy/net/stream.h"

namespace postern::net {

// Stream::Adopt without the system calls for options, for descriptors that Listener and Connector
// have made with all of them. Takes over `fd`; closes it on an error.
class StreamAdopter {
 public:
  static absl::StatusOr<std::unique_ptr<Stream>> AdoptPrepared(Loop& loop, int fd);
};

}  // namespace postern::net
