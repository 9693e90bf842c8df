// SPDX-License-Identifier: Apache-2.0
#include "common/base/ip.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>

#include "absl/status/status.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr int kMappedBits = 96;

absl::Status NotAnAddress(std::string_view text) {
  return absl::InvalidArgumentError(
      StrCat("'", Printable(text, 64), "' is not an IP address (192.0.2.1 or 2001:db8::1)"));
}

// The number behind the slash: decimal digits without sign or leading zero. -1 if it is none.
int ParsePrefixLength(std::string_view digits) {
  if (digits.empty() || digits.size() > 3 || (digits.size() > 1 && digits[0] == '0')) {
    return -1;
  }
  if (!std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return -1;
  }
  int value = -1;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

// The bits of byte `index` that lie inside a prefix of `length` bits.
uint8_t MaskOfByte(size_t index, int length) {
  const int bits = std::clamp(length - static_cast<int>(index) * 8, 0, 8);
  return static_cast<uint8_t>(0xff00U >> static_cast<unsigned>(bits));
}

}  // namespace

absl::StatusOr<IpAddress> IpAddress::Parse(std::string_view text) {
  // inet_pton reads a C string: a NUL inside would hide what follows it.
  if (text.size() >= INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos) {
    return NotAnAddress(text);
  }
  const std::string owned(text);
  std::array<uint8_t, 16> raw{};
  if (inet_pton(AF_INET, owned.c_str(), raw.data()) == 1) {
    return FromBytes({raw.data(), 4});
  }
  if (inet_pton(AF_INET6, owned.c_str(), raw.data()) == 1) {
    return FromBytes(raw);
  }
  return NotAnAddress(text);
}

absl::StatusOr<IpAddress> IpAddress::FromBytes(ByteSpan bytes) {
  if (bytes.size() != 4 && bytes.size() != 16) {
    return absl::InvalidArgumentError(
        StrCat("an IP address has 4 or 16 bytes, not ", bytes.size()));
  }
  IpAddress ip;
  const bool mapped =
      bytes.size() == 16 && std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
  if (mapped) {
    bytes = bytes.subspan(kMappedPrefix.size());
  }
  ip.v4_ = bytes.size() == 4;
  std::copy(bytes.begin(), bytes.end(), ip.bytes_.begin());
  return ip;
}

bool IpAddress::IsLoopback() const {
  if (v4_) {
    return bytes_[0] == 127;
  }
  return std::all_of(bytes_.begin(), bytes_.end() - 1, [](uint8_t b) { return b == 0; }) &&
         bytes_[15] == 1;
}

bool IpAddress::IsUnspecified() const {
  return std::all_of(bytes_.begin(), bytes_.end(), [](uint8_t b) { return b == 0; });
}

std::string IpAddress::ToString() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(v4_ ? AF_INET : AF_INET6, bytes_.data(), text.data(), text.size());
  return text.data();
}

absl::StatusOr<Cidr> Cidr::Parse(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string_view address = text.substr(0, slash);
  absl::StatusOr<IpAddress> base = IpAddress::Parse(address);
  if (!base.ok()) {
    return base.status();
  }
  Cidr cidr;
  cidr.base_ = *base;
  const int width = base->is_v4() ? 32 : 128;
  if (slash == std::string_view::npos) {
    cidr.prefix_ = width;
    return cidr;
  }
  cidr.prefix_ = ParsePrefixLength(text.substr(slash + 1));
  // ::ffff:10.0.0.0/104 is the range 10.0.0.0/8.
  const bool mapped = base->is_v4() && address.find(':') != std::string_view::npos;
  if (mapped) {
    cidr.prefix_ -= kMappedBits;
  }
  if (cidr.prefix_ < 0 || cidr.prefix_ > width) {
    return absl::InvalidArgumentError(
        StrCat("'", Printable(text, 64), "': the prefix length must be ", mapped ? kMappedBits : 0,
               " to ", mapped ? 128 : width));
  }
  const ByteSpan bytes = cidr.base_.bytes();
  for (size_t i = 0; i < bytes.size(); ++i) {
    if ((bytes[i] & MaskOfByte(i, cidr.prefix_)) != bytes[i]) {
      return absl::InvalidArgumentError(
          StrCat("'", Printable(text, 64), "' has address bits set behind its prefix"));
    }
  }
  return cidr;
}

bool Cidr::Contains(const IpAddress& ip) const {
  if (ip.is_v4() != base_.is_v4()) {
    return false;
  }
  const ByteSpan mine = base_.bytes();
  const ByteSpan theirs = ip.bytes();
  for (size_t i = 0; i < mine.size(); ++i) {
    if ((theirs[i] & MaskOfByte(i, prefix_)) != mine[i]) {
      return false;
    }
  }
  return true;
}

std::string Cidr::ToString() const {
  return StrCat(base_.ToString(), "/", prefix_);
}

}  // namespace postern::base
