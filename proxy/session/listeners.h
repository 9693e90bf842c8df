// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/config/proxy_config.h"
#include "proxy/net/listener.h"
#include "proxy/net/loop.h"
#include "proxy/session/worker_context.h"

namespace postern::session {

// What the workers of one process share of their listeners: the port that the first one was given
// for port 0, and the unix sockets, which only one can bind. Filled by the first worker, empty
// again when that one is gone. Any thread.
class ListenerShare {
 public:
  struct Entry {
    int fd = -1;
    net::SocketAddress address;
  };
  // Each key is a position in the list of listeners.
  bool Find(size_t position, Entry* entry) const;
  void Put(size_t position, const Entry& entry);
  void Clear();

 private:
  mutable std::mutex mutex_;
  std::map<size_t, Entry> entries_;
};

// The listeners that the config names, in its order: tunnels, outbound proxy ports, then
// interception. Host names in
// listen addresses are looked up here, once. Errors name the flag and the address.
absl::StatusOr<std::vector<std::unique_ptr<ListenerSpec>>> ListenerSpecs(
    const config::ProxyConfig& config);

// The listeners of one worker. Worker's thread, but for the construction before it runs.
class Listeners {
 public:
  using OnAccept = std::function<void(const ListenerSpec& via, std::unique_ptr<net::Stream> stream,
                                      const net::SocketAddress& peer)>;
  // Whether a connection may become one: net::ListenOptions::admit.
  using Admit = std::function<bool(const ListenerSpec& via, const net::SocketAddress& peer)>;

  // Opens all of them, or takes duplicates of what the first worker opened. Nothing is accepted
  // before the loop runs.
  static absl::StatusOr<std::unique_ptr<Listeners>> Open(net::Loop& loop,
                                                         const config::ProxyConfig& config,
                                                         std::shared_ptr<ListenerShare> share,
                                                         Admit admit, OnAccept on_accept);
  ~Listeners();
  Listeners(const Listeners&) = delete;
  Listeners& operator=(const Listeners&) = delete;

  const std::vector<Worker::BoundListener>& bound() const { return bound_; }
  // A listening socket that is handed over, beside what the config names; `fd` stays the caller's.
  // What it accepts is for `target`. Not among bound(). One that was handed over before for the
  // same address is closed. FailedPrecondition: inbound was closed before, and stays so.
  absl::Status Take(net::Loop& loop, int fd, const net::SocketAddress& target);
  void Pause(base::Direction direction);
  void Resume(base::Direction direction);
  // For good: nothing of this direction is taken any more.
  void Close(base::Direction direction);
  // Accept errors since the last call.
  uint64_t TakeAcceptErrors();

 private:
  struct Opened {
    std::unique_ptr<ListenerSpec> spec;
    std::unique_ptr<net::Listener> listener;  // null once closed
    uint64_t errors_told = 0;
  };
  Listeners(std::shared_ptr<ListenerShare> share, Admit admit, OnAccept on_accept)
      : share_(std::move(share)), admit_(std::move(admit)), on_accept_(std::move(on_accept)) {}
  absl::Status OpenOne(net::Loop& loop, size_t position, std::unique_ptr<ListenerSpec> spec);

  std::shared_ptr<ListenerShare> share_;
  const Admit admit_;
  const OnAccept on_accept_;
  std::vector<Opened> open_;
  std::vector<Worker::BoundListener> bound_;
  std::array<bool, base::kDirectionCount> closed_{};  // by direction
  bool filled_share_ = false;
};

}  // namespace postern::session
