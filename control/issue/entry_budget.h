// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace postern::issue {

// How many certificates one entry may be given. Whoever deletes an entry revokes each living one of
// them by its serial, so somebody who renewed a stolen certificate without end could make the list
// of revocations too large to be sent to anybody. Thread-safe.
class EntryBudget {
 public:
  // At once, and then as many again spread over one lifetime: twice as many live at most.
  static constexpr double kMost = 2048;

  explicit EntryBudget(const base::Clock& clock) : clock_(clock) {}

  // Whether one more of that lifetime may be made for the entry now; counts it if so.
  bool Take(const std::string& entry_id, absl::Duration ttl);

  // Entries that are remembered; for tests.
  size_t size() const;

 private:
  struct Bucket {
    double left = kMost;
    absl::Duration at;  // SinceBoot, of the last refill
    absl::Duration ttl;

    void Refill(absl::Duration now);
  };
  void Prune(absl::Duration now);

  static constexpr size_t kPruneFrom = 1024;
  const base::Clock& clock_;
  mutable std::mutex mutex_;                          // guards the next two
  absl::flat_hash_map<std::string, Bucket> buckets_;  // by entry
  size_t prune_at_ = kPruneFrom;
};

}  // namespace postern::issue
