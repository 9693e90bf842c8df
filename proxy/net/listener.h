// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"

namespace postern::net {

struct ListenOptions {
  bool reuse_port = true;    // several workers listen on one port (TCP)
  bool transparent = false;  // IP_TRANSPARENT, for tproxy
  int backlog = 1024;
  mode_t unix_mode = 0666;    // of a unix socket's file
  int accepts_per_turn = 16;  // then other connections get their turn
  // Asked of each connection before anything is made for it; false: it is reset at once, which
  // costs so little that sixteen of them count for one that is let in. Null: all are let in.
  std::function<bool(const SocketAddress& peer)> admit = nullptr;
};

// A listening socket on a loop. Accept errors (EMFILE, ENFILE, ENOBUFS, ENOMEM) pause it with a
// back-off of 5 ms to 1 s and are counted; it never spins. A unix socket file is removed first only
// when nothing listens on it, and at the end only if it is still this listener's own.
class Listener {
 public:
  using OnAccept = std::function<void(std::unique_ptr<Stream>, const SocketAddress& peer)>;

  // Unavailable or PermissionDenied name the address and the system's error. Port 0 picks one: see
  // LocalAddress.
  static absl::StatusOr<std::unique_ptr<Listener>> Listen(Loop& loop, const SocketAddress& address,
                                                          const ListenOptions& options,
                                                          OnAccept on_accept);
  // Several listeners on different loops may share one unix or reuse_port=false socket: takes a
  // duplicate of `fd`, which is listening already (systemd socket activation, unix sockets).
  static absl::StatusOr<std::unique_ptr<Listener>> Adopt(Loop& loop, int fd,
                                                         const ListenOptions& options,
                                                         OnAccept on_accept);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Stops and resumes accepting (a limit was reached); the backlog goes on filling.
  void Pause();
  void Resume();

  const SocketAddress& LocalAddress() const;
  int fd() const;
  uint64_t accept_errors() const;

 private:
  struct Block;
  static absl::StatusOr<std::unique_ptr<Listener>> Open(Loop& loop, int fd,
                                                        const ListenOptions& options,
                                                        OnAccept on_accept);
  explicit Listener(Block* block) : block_(block) {}
  Block* block_;
};

}  // namespace postern::net
