// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/container/btree_set.h"
#include "common/base/clock.h"
#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::session {

// When something is to be done about the certificate of an open connection's peer: one ordered set
// and one timer for all connections of a worker. Times are the wall clock's, in milliseconds since
// the epoch; a jump of that clock is noticed within a second. Owned by the worker; its thread.
class ExpiryWatch {
 public:
  // `visit` is called once for each entry whose time has come, the entry taken out.
  ExpiryWatch(net::Loop& loop, const base::Clock& clock, std::function<void(uint64_t id)> visit);

  // Replaces the entry (`former`, `id`); 0 for either: there is none.
  void Move(uint64_t id, int64_t former, int64_t at);
  size_t size() const { return due_.size(); }
  int64_t Now() const;

 private:
  void OnTimer();
  void Arm();

  const base::Clock& clock_;
  const std::function<void(uint64_t)> visit_;
  net::Timer timer_;
  int64_t armed_for_ = 0;  // the first entry that the timer knows of; 0: it does not run
  absl::btree_set<std::pair<int64_t, uint64_t>> due_;
};

}  // namespace postern::session
