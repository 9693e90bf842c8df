// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace postern::session {

// How often each key is held, in memory of a fixed size and without a lock: any thread. A key is
// its 64-bit hash under a secret (SipHash), so that nobody can choose keys that meet. A place is
// given up only when its count is back at zero, never for another key: so there is nothing that a
// key's owner could do to be forgotten. Counts are exact but for moments in which two threads enter
// the same new key; then they may briefly be too high by one.
class CountTable {
 public:
  // For at most `keys` keys that are held at the same time. Memory: 12 to 24 bytes for each, of
  // which only the pages that were ever used are resident.
  explicit CountTable(size_t keys);
  CountTable(const CountTable&) = delete;
  CountTable& operator=(const CountTable&) = delete;

  // Counts the key once more and returns its count now. 0: there is no place for it (more keys than
  // there may be), and nothing was counted.
  uint32_t Add(uint64_t hash);
  // Takes one back that Add has counted.
  void Remove(uint64_t hash);
  uint32_t Count(uint64_t hash) const;

  size_t places() const { return (mask_ + 1) * kWays; }

 private:
  // A key may stand in two groups of eight places: with two thirds of them taken, that both groups
  // are full does not happen.
  static constexpr size_t kWays = 8;
  // A place is one word: the upper 40 bits of the key's hash, and its count; 0 is vacant.
  static constexpr unsigned kCountBits = 24;
  static constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;

  struct Free {
    void operator()(uint64_t* words) const { std::free(words); }
  };
  struct Groups {
    size_t first;
    size_t second;
  };
  struct Found;

  Groups GroupsOf(uint64_t hash) const;
  Found Look(uint64_t hash) const;

  const size_t mask_;  // over groups
  // From calloc: large ones are pages of zeros that take no memory until they are written.
  const std::unique_ptr<uint64_t[], Free> words_;
};

}  // namespace postern::session
