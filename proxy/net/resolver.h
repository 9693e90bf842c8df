// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"

namespace postern::net {

// The addresses of a host name, in the order in which the system prefers them. NotFound or
// Unavailable name the host. Blocks: for the start of a program, never on a loop.
absl::StatusOr<std::vector<SocketAddress>> ResolveNow(const std::string& host, uint16_t port);

// One look-up off the loop, by a few threads that all loops share. Destroying it cancels; the
// callback comes once, on the loop, never from inside the constructor. Loop thread only; the loop
// outlives it.
class Resolver {
 public:
  using Done = std::function<void(absl::StatusOr<std::vector<SocketAddress>>)>;
  Resolver(Loop& loop, const std::string& host, uint16_t port, Done done);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

 private:
  struct Query;
  std::shared_ptr<Query> query_;
};

}  // namespace postern::net
