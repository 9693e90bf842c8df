// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postern::base {

using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;
using Sha256Digest = std::array<uint8_t, 32>;

inline ByteSpan AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Lower-case hexadecimal, two digits for each byte.
std::string ToHex(ByteSpan bytes);

// The reverse of ToHex, upper case accepted. InvalidArgument: odd length or another character.
absl::StatusOr<std::string> FromHex(std::string_view text);

// Text that came from a peer or a file, made safe for one log line: control bytes, quotes,
// backslashes and non-ASCII bytes become \xNN, and no more than `limit` input bytes are shown.
std::string Printable(std::string_view text, size_t limit = 256);

// Text as the inside of a JSON string, without the quotes: quotes, backslashes and control
// characters are escaped, valid UTF-8 stays, each other byte becomes U+FFFD.
std::string JsonEscaped(std::string_view text);

// Text that keeps to one line of a terminal: control characters (C0, DEL, C1) and bytes that are no
// UTF-8 become \xNN, all else stays. For whole log lines; for a peer's string use Printable.
std::string LineSafe(std::string_view text);

// The same for text from elsewhere, which may be of any length: at most `limit` bytes of it.
std::string LineSafe(std::string_view text, size_t limit);

}  // namespace postern::base
