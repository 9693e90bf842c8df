// SPDX-License-Identifier: Apache-2.0
#include "control/issue/entry_budget.h"

#include <algorithm>

namespace postern::issue {

void EntryBudget::Bucket::Refill(absl::Duration now) {
  left = std::min(kMost, left + kMost * absl::FDivDuration(now - at, ttl));
  at = now;
}

// Who is full again may as well be a stranger.
void EntryBudget::Prune(absl::Duration now) {
  absl::erase_if(buckets_, [now](auto& one) {
    one.second.Refill(now);
    return one.second.left >= kMost;
  });
  prune_at_ = std::max(kPruneFrom, 2 * buckets_.size());
}

bool EntryBudget::Take(const std::string& entry_id, absl::Duration ttl) {
  const absl::Duration now = clock_.SinceBoot();
  const std::lock_guard lock(mutex_);
  if (buckets_.size() >= prune_at_) {
    Prune(now);
  }
  Bucket& bucket = buckets_.try_emplace(entry_id, Bucket{kMost, now, ttl}).first->second;
  bucket.Refill(now);
  bucket.ttl = ttl;
  if (bucket.left < 1) {
    return false;
  }
  bucket.left -= 1;
  return true;
}

size_t EntryBudget::size() const {
  const std::lock_guard lock(mutex_);
  return buckets_.size();
}

}  // namespace postern::issue
