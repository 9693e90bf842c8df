// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace postern::base {

// An IPv4 or IPv6 address, without port and scope. A v4-mapped IPv6 address (::ffff:a.b.c.d) is
// turned into the IPv4 one when it is made, so that two spellings of one host never differ in
// policy.
class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0

  // "192.0.2.1" or "2001:db8::1", without brackets. InvalidArgument otherwise.
  static absl::StatusOr<IpAddress> Parse(std::string_view text);
  // 4 or 16 bytes in network order. InvalidArgument for another length.
  static absl::StatusOr<IpAddress> FromBytes(ByteSpan bytes);

  bool is_v4() const { return v4_; }
  bool IsLoopback() const;     // 127.0.0.0/8, ::1
  bool IsUnspecified() const;  // 0.0.0.0, ::
  ByteSpan bytes() const { return {bytes_.data(), v4_ ? size_t{4} : size_t{16}}; }
  std::string ToString() const;

  auto operator<=>(const IpAddress&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const IpAddress& ip) {
    return H::combine(std::move(h), ip.v4_, ip.bytes_);
  }

 private:
  std::array<uint8_t, 16> bytes_{};
  bool v4_ = true;
};

// A range of addresses of one family.
class Cidr {
 public:
  // "10.0.0.0/8", "2001:db8::/32"; a bare address is that one address. InvalidArgument also when
  // bits behind the prefix are set.
  static absl::StatusOr<Cidr> Parse(std::string_view text);

  bool Contains(const IpAddress& ip) const;
  const IpAddress& base() const { return base_; }
  int prefix_length() const { return prefix_; }
  std::string ToString() const;

  bool operator==(const Cidr&) const = default;

 private:
  IpAddress base_;
  int prefix_ = 0;
};

}  // namespace postern::base
