// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/bytes.h"
#include "common/base/ip.h"

namespace postern::base {

// `ip` with all bits behind the prefix cleared.
inline IpAddress MaskAddress(const IpAddress& ip, int prefix_length) {
  std::array<uint8_t, 16> bytes{};
  const ByteSpan source = ip.bytes();
  for (size_t i = 0; i < source.size(); ++i) {
    const int bits = std::clamp(prefix_length - static_cast<int>(i) * 8, 0, 8);
    bytes[i] = static_cast<uint8_t>(source[i] & (0xFF00U >> static_cast<unsigned>(bits)));
  }
  // Four or sixteen bytes are always an address, and of the same family: a v6 one is never
  // v4-mapped, and clearing bits behind a prefix does not make it so.
  return *IpAddress::FromBytes({bytes.data(), source.size()});
}

// Address ranges with a value each: one hash lookup for each prefix length that occurs, however
// many ranges there are. Safe to read from any thread once it is filled.
template <typename Value>
class RangeMap {
 public:
  Value& operator[](const Cidr& range) {
    std::vector<int>& lengths = range.base().is_v4() ? v4_lengths_ : v6_lengths_;
    const auto place = std::ranges::lower_bound(lengths, range.prefix_length(), std::greater<>());
    if (place == lengths.end() || *place != range.prefix_length()) {
      lengths.insert(place, range.prefix_length());
    }
    return values_[{range.base(), range.prefix_length()}];
  }

  // Calls `visit` with the value of each range that holds `ip`, the most specific range first.
  template <typename Visit>
  void ForEachAround(const IpAddress& ip, Visit visit) const {
    for (const int length : ip.is_v4() ? v4_lengths_ : v6_lengths_) {
      const auto found = values_.find({MaskAddress(ip, length), length});
      if (found != values_.end()) {
        visit(found->second);
      }
    }
  }

  bool empty() const { return values_.empty(); }

 private:
  absl::flat_hash_map<std::pair<IpAddress, int>, Value> values_;
  std::vector<int> v4_lengths_, v6_lengths_;  // descending
};

}  // namespace postern::base
