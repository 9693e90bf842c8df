// SPDX-License-Identifier: Apache-2.0
#include "control/service/rate_limiter.h"

#include <algorithm>

namespace postern::service {

absl::Duration RateLimiter::Take(const std::string& source) {
  if (rate_ <= 0) {
    return absl::ZeroDuration();
  }
  const absl::Duration now = clock_.SinceBoot();
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = buckets_.find(source);
  if (found == buckets_.end()) {
    if (buckets_.size() >= kMaxSources) {
      Forget(now);
    }
    const bool full = buckets_.size() >= kMaxSources;
    found = buckets_.try_emplace(full ? std::string() : source, Bucket{rate_, now, now}).first;
  }
  Bucket& bucket = found->second;
  const double refill = absl::ToDoubleSeconds(now - bucket.filled_at) * rate_;
  bucket.tokens = std::min(rate_, bucket.tokens + refill);
  bucket.filled_at = now;
  if (bucket.tokens >= 1) {
    bucket.tokens -= 1;
    return absl::ZeroDuration();
  }
  const absl::Duration place =
      std::max(bucket.promised_until, now + absl::Seconds((1 - bucket.tokens) / rate_));
  // Bounded: a flood must not send the others of its source away for ever.
  bucket.promised_until = std::min(place + absl::Seconds(1 / rate_), now + kLongestWait);
  return std::min(place - now, kLongestWait);
}

void RateLimiter::Forget(absl::Duration now) {
  absl::erase_if(buckets_, [&](const auto& entry) {
    return absl::ToDoubleSeconds(now - entry.second.filled_at) >= 1;
  });
}

}  // namespace postern::service
