// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/ip.h"

namespace postern::service {

struct ConnectionLimits {
  size_t total = 0;
  size_t per_source = 0;  // of one IPv4 address or one IPv6 /64
};

// Who is connected, by descriptor. gRPC owns the descriptors and says nothing when it closes one,
// so the ledger asks: a number whose socket is another one now, or none, is a connection that
// ended. No I/O of its own; one thread.
class ConnectionLedger {
 public:
  // Whether descriptor `fd` still is the socket with this inode.
  using IsOpen = std::function<bool(int fd, ino_t inode)>;
  enum class Verdict : uint8_t { kAdmitted, kTooMany, kTooManyOfSource };

  ConnectionLedger(ConnectionLimits limits, IsOpen is_open)
      : limits_(limits), is_open_(std::move(is_open)) {}

  // Enters a connection that was just accepted, unless one limit too many are known to be open.
  // kTooMany may be out of date: after a Sweep, ask again.
  Verdict Admit(int fd, ino_t inode, const base::IpAddress& source);

  // Forgets the connections that have ended.
  void Sweep();

  size_t open() const { return connections_.size(); }

 private:
  struct Connection {
    ino_t inode;
    base::IpAddress source;
  };
  void Forget(int fd);

  const ConnectionLimits limits_;
  const IsOpen is_open_;
  absl::flat_hash_map<int, Connection> connections_;
  absl::flat_hash_map<base::IpAddress, size_t> of_source_;
};

}  // namespace postern::service
