// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <tuple>

#include "cli/run/caller.h"
#include "cli/run/judge.h"
#include "cli/run/late_answers.h"
#include "cli/run/notifier.h"
#include "cli/run/proxy_link.h"
#include "cli/run/socket_call.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// The bind and listen calls of the command. A TCP socket that is bound to an address which others
// can reach is bound to loopback instead, at the same port; when it listens, a listener at the
// address that was asked for goes to the proxy, which lets in whom it may. So no port of the
// command's can be reached but through the proxy or from this host's loopback. The loop's thread.
//
// The outer listener lives as long as the proxy: when the command's own has closed, the proxy finds
// nobody there. One for other families at the same address and port takes its place.
class Listens {
 public:
  Listens(Notifier& notifier, ProxyLink& link)
      : notifier_(notifier), link_(link), answers_(notifier) {}

  void HandleBind(const Call& call, const Caller& caller);
  void HandleListen(const Call& call, const Caller& caller);

 private:
  // What was asked for, by the open socket.
  struct Moved {
    Place asked;
    bool v6_only = false;
  };
  using Outer = std::tuple<int, base::IpAddress, uint16_t>;  // domain, address, port

  int BindTo(int socket, const SocketFacts& facts, base::ByteSpan address);
  int Move(int socket, const SocketFacts& facts, const Place& asked);
  int ListenTcp(int socket, const SocketFacts& facts, int backlog);
  int ListenMoved(int socket, const SocketFacts& facts, const Moved& moved, int backlog);
  bool HasOuter(uint16_t port) const;
  void Remember(ino_t inode, const Moved& moved);

  Notifier& notifier_;
  ProxyLink& link_;
  LateAnswers answers_;
  std::map<ino_t, Moved> moved_;
  std::deque<ino_t> moved_order_;  // oldest first: sockets that never listened are forgotten
  std::map<Outer, bool> outer_;    // the last one of each: whether it is v6_only
};

}  // namespace postern::run
