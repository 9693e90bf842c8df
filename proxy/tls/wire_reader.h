// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/base/bytes.h"

namespace postern::tls {

// Reads big-endian fields one after the other and never past the end. A value; what it gives out
// lives as long as the bytes.
class WireReader {
 public:
  explicit WireReader(base::ByteSpan bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  std::optional<base::ByteSpan> Take(size_t count) {
    if (count > bytes_.size()) {
      return std::nullopt;
    }
    const base::ByteSpan taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  std::optional<uint32_t> Integer(size_t width) {
    const std::optional<base::ByteSpan> bytes = Take(width);
    if (!bytes.has_value()) {
      return std::nullopt;
    }
    uint32_t value = 0;
    for (const uint8_t byte : *bytes) {
      value = (value << 8U) | byte;
    }
    return value;
  }
  // A vector with a length of `width` bytes in front.
  std::optional<base::ByteSpan> Vector(size_t width) {
    const std::optional<uint32_t> length = Integer(width);
    return length.has_value() ? Take(*length) : std::nullopt;
  }

 private:
  base::ByteSpan bytes_;
};

}  // namespace postern::tls
