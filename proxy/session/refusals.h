// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "common/base/close_reason.h"
#include "proxy/net/socket_address.h"
#include "proxy/session/worker_context.h"

namespace postern::session {

// What is told of connections that are refused before anything is made for them: each is counted as
// opened and closed, and the first few of each second are recorded, so that a flood costs no more
// than its counting. Owned by the worker; its thread.
class Refusals {
 public:
  explicit Refusals(WorkerContext& worker) : worker_(worker) {}
  Refusals(const Refusals&) = delete;
  Refusals& operator=(const Refusals&) = delete;

  void Add(const ListenerSpec& via, const net::SocketAddress& peer, base::CloseReason reason,
           std::string_view why);

 private:
  bool MayRecord();
  void Record(const ListenerSpec& via, const net::SocketAddress& peer, base::CloseReason reason,
              std::string_view why);

  WorkerContext& worker_;
  std::chrono::milliseconds window_began_{0};
  uint32_t recorded_ = 0;  // in this window
};

}  // namespace postern::session
