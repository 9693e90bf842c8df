// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::attest {

// The challenges that members have yet to answer: each good once, for a minute, on the connection
// that asked for it. A connection has one; a new one takes its place. When the table is full the
// oldest goes, which an answer of milliseconds does not notice: a flood of callers costs others
// nothing until it fills the whole table within such a time (the rate limit of a source is the
// service's). Thread-safe; `clock` outlives it.
class ChallengeTable {
 public:
  static constexpr absl::Duration kLifetime = absl::Minutes(1);
  static constexpr size_t kMaxOpen = 16384;  // some 4 MiB

  explicit ChallengeTable(const base::Clock& clock) : clock_(clock) {}

  // 32 random bytes for this connection, which must have a name that no other open connection has.
  // Errors carry a RefusalReason: kInternal when there is no randomness.
  absl::StatusOr<std::string> Make(const std::string& connection);

  // Takes the connection's challenge out, whatever becomes of the answer. kBadChallenge: there is
  // none (never asked for, used already, crowded out), it is too old, or it is another one.
  absl::Status Use(const std::string& connection, std::string_view challenge);

  size_t open() const;  // with those that nobody asks for any more

 private:
  struct Open {
    std::string connection;
    std::string challenge;
    absl::Duration made;
  };
  using Order = std::list<Open>;
  void Forget(Order::iterator open);
  void ForgetOld(absl::Duration now);

  const base::Clock& clock_;
  mutable std::mutex mutex_;  // guards what follows
  Order order_;               // oldest first
  absl::flat_hash_map<std::string, Order::iterator> of_connection_;
};

}  // namespace postern::attest
