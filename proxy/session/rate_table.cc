// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/rate_table.h"

#include <algorithm>

namespace postern::session {
namespace {

constexpr uint64_t kSecond = 1'000'000;

}  // namespace

RateTable::RateTable(uint32_t per_second, uint32_t burst)
    : interval_(std::max<uint64_t>(kSecond / std::max(per_second, 1U), 1)),
      tolerance_(interval_ * (std::max(burst, 1U) - 1)) {}

uint64_t RateTable::Ahead(uint64_t word, uint64_t now) const {
  const uint64_t ahead = ((word & kTimeMask) - now) & kTimeMask;
  return ahead <= tolerance_ + interval_ ? ahead : 0;
}

bool RateTable::Take(uint64_t hash, std::chrono::microseconds time) {
  const uint64_t now = static_cast<uint64_t>(time.count()) & kTimeMask;
  std::atomic<uint64_t>* const places = &words_[(hash % kGroups) * kWays];
  while (true) {
    std::atomic<uint64_t>* place = nullptr;
    uint64_t was = 0;
    uint64_t ahead = 0;
    uint64_t soonest = UINT64_MAX;
    for (size_t i = 0; i < kWays; ++i) {
      const uint64_t word = places[i].load(std::memory_order_relaxed);
      const uint64_t its = Ahead(word, now);
      if (its > 0 && (word ^ hash) >> kTimeBits == 0) {
        place = &places[i];
        was = word;
        ahead = its;
        break;
      }
      if (its < soonest) {
        soonest = its;
        place = &places[i];
        was = word;
      }
    }
    if (ahead > tolerance_) {
      return false;
    }
    const uint64_t next = (hash & ~kTimeMask) | ((now + ahead + interval_) & kTimeMask);
    if (place->compare_exchange_weak(was, next, std::memory_order_relaxed)) {
      return true;
    }
  }
}

}  // namespace postern::session
