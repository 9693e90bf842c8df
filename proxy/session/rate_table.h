// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace postern::session {

// How fast each key may come: a token bucket for each, as the one time at which it will be full
// again (GCRA, ITU-T I.371), in memory of a fixed size and without a lock: any thread. A key is its
// 64-bit hash under a secret. A bucket that is full again is as good as new, and its place is
// vacant; where none is, the place of the bucket that will be full first is taken. So a key that is
// over its rate is the last to be forgotten: to be so, its owner would have to bring others that
// are over theirs by more.
class RateTable {
 public:
  // `per_second` (at least 1) in the long run, `burst` (at least 1) at once. A bucket must be full
  // again within an hour.
  RateTable(uint32_t per_second, uint32_t burst);
  RateTable(const RateTable&) = delete;
  RateTable& operator=(const RateTable&) = delete;

  // Takes one token of the key at time `now` (since any start, the same for all threads); false:
  // there is none, and nothing was taken.
  bool Take(uint64_t hash, std::chrono::microseconds now);

 private:
  static constexpr size_t kWays = 8;
  static constexpr size_t kGroups = 2048;
  // A word: the upper 28 bits of the key's hash, and the microsecond at which its bucket is full
  // again, which wraps after 19 hours: far more than a bucket is ahead, so that what is further
  // ahead than that lies behind.
  static constexpr unsigned kTimeBits = 36;
  static constexpr uint64_t kTimeMask = (uint64_t{1} << kTimeBits) - 1;

  // How long after `now` the bucket of a word is full again; 0: it is.
  uint64_t Ahead(uint64_t word, uint64_t now) const;

  const uint64_t interval_;   // microseconds for one token
  const uint64_t tolerance_;  // how far ahead a bucket may be that still has a token
  std::array<std::atomic<uint64_t>, kGroups * kWays> words_{};
};

}  // namespace postern::session
