// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "cli/run/event_loop.h"
#include "cli/run/proxy_link.h"
#include "cli/run/socket_call.h"
#include "common/base/unique_fd.h"

namespace postern::run {

// Where the command's caught sockets are connected to: listeners on loopback, whose accepted ends
// go to the proxy with the destination that the command asked for. Only what was announced by its
// source address is taken; any other connection is reset. So no port of the proxy can be dialled by
// anybody. The loop's thread.
class Doorway {
 public:
  static absl::StatusOr<std::unique_ptr<Doorway>> Open(EventLoop& loop, ProxyLink& link);
  ~Doorway();
  Doorway(const Doorway&) = delete;
  Doorway& operator=(const Doorway&) = delete;

  struct Result {
    int error = 0;           // as of connect; ECONNREFUSED: there is no proxy
    bool announced = false;  // it is a new connection, which goes to the proxy
  };
  // Connects the socket without waiting. `outcome` (the writing end of a pipe, or none) goes to the
  // proxy with the connection. On a socket whose connect is under way, or over, it says what the
  // kernel does of a second one.
  Result Connect(int socket, int domain, const Place& destination, base::UniqueFd outcome);

 private:
  struct Announced {
    Place destination;
    base::UniqueFd outcome;
    std::chrono::steady_clock::time_point since;
  };
  Doorway(EventLoop& loop, ProxyLink& link) : loop_(loop), link_(link) {}
  void AcceptFrom(int listener);
  void WatchDoor(int listener);
  void RestFrom(int listener);
  void ForgetOld();
  // The listener that a socket of this domain, bound as it is, can reach.
  Address DoorFor(int socket, int domain) const;

  EventLoop& loop_;
  ProxyLink& link_;
  base::UniqueFd v4_, v6_;
  uint16_t v4_port_ = 0, v6_port_ = 0;    // v6: 0 on a host without
  std::map<Place, Announced> announced_;  // by source
  uint64_t timer_ = 0;
};

}  // namespace postern::run
