// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/count_table.h"

#include <algorithm>
#include <atomic>
#include <bit>

namespace postern::session {
namespace {

using Word = std::atomic_ref<uint64_t>;

constexpr size_t kFewestKeys = 64;

uint64_t* Zeros(size_t words) {
  auto* const zeros = static_cast<uint64_t*>(std::calloc(words, sizeof(uint64_t)));
  if (zeros == nullptr) {
    std::abort();  // at start, of what is hardly resident
  }
  return zeros;
}

}  // namespace

// What the two groups of a key hold.
struct CountTable::Found {
  uint64_t* mine = nullptr;  // a place of the key's
  uint64_t was = 0;          // its word
  uint64_t* vacant = nullptr;
  uint32_t count = 0;
};

CountTable::CountTable(size_t keys)
    : mask_(std::bit_ceil(std::max(keys, kFewestKeys) * 3 / 2) / kWays - 1),
      words_(Zeros((mask_ + 1) * kWays)) {}

CountTable::Groups CountTable::GroupsOf(uint64_t hash) const {
  // The lower bits are independent of the upper ones, which a place keeps; the second group is
  // made of all of them.
  const size_t first = hash & mask_;
  const size_t second = ((hash * 0x9e3779b97f4a7c15U) >> 32U) & mask_;
  return {first, second == first ? (first + 1) & mask_ : second};
}

CountTable::Found CountTable::Look(uint64_t hash) const {
  const Groups groups = GroupsOf(hash);
  Found found;
  size_t most_vacant = 0;
  for (const size_t group : {groups.first, groups.second}) {
    uint64_t* const places = &words_[group * kWays];
    uint64_t* vacant = nullptr;
    size_t vacancies = 0;
    for (size_t i = 0; i < kWays; ++i) {
      const uint64_t word = Word(places[i]).load(std::memory_order_relaxed);
      if ((word & kCountMask) == 0) {
        vacant = &places[i];
        ++vacancies;
      } else if ((word ^ hash) >> kCountBits == 0) {
        found.mine = &places[i];
        found.was = word;
        found.count += static_cast<uint32_t>(word & kCountMask);
      }
    }
    if (vacancies > most_vacant) {  // the emptier group
      most_vacant = vacancies;
      found.vacant = vacant;
    }
  }
  return found;
}

// Each change is one exchange of one word: what another thread did in between is looked at anew.
// Two threads that enter a new key at once may take two places for it; its count is their sum.
uint32_t CountTable::Add(uint64_t hash) {
  while (true) {
    Found found = Look(hash);
    if (found.mine != nullptr) {
      if (Word(*found.mine)
              .compare_exchange_weak(found.was, found.was + 1, std::memory_order_relaxed)) {
        return found.count + 1;
      }
      continue;
    }
    if (found.vacant == nullptr) {
      return 0;
    }
    uint64_t vacant = 0;
    if (Word(*found.vacant)
            .compare_exchange_weak(vacant, (hash & ~kCountMask) | 1, std::memory_order_relaxed)) {
      return 1;
    }
  }
}

void CountTable::Remove(uint64_t hash) {
  while (true) {
    Found found = Look(hash);
    if (found.mine == nullptr) {
      return;  // cannot be: whoever removes has added
    }
    const uint64_t now = (found.was & kCountMask) == 1 ? 0 : found.was - 1;
    if (Word(*found.mine).compare_exchange_weak(found.was, now, std::memory_order_relaxed)) {
      return;
    }
  }
}

uint32_t CountTable::Count(uint64_t hash) const {
  return Look(hash).count;
}

}  // namespace postern::session
