// SPDX-License-Identifier: Apache-2.0
#include "common/base/bytes.h"

#include <algorithm>
#include <array>
#include <optional>

#include "absl/status/status.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

std::optional<uint8_t> HexValue(char c) {
  if (c >= '0' && c <= '9') {
    return static_cast<uint8_t>(c - '0');
  }
  if (c >= 'a' && c <= 'f') {
    return static_cast<uint8_t>(c - 'a' + 10);
  }
  if (c >= 'A' && c <= 'F') {
    return static_cast<uint8_t>(c - 'A' + 10);
  }
  return std::nullopt;
}

void AppendHexByte(uint8_t byte, std::string& out) {
  out.push_back(kHexDigits[byte >> 4U]);
  out.push_back(kHexDigits[byte & 0x0fU]);
}

bool IsContinuation(uint8_t byte) {
  return (byte & 0xc0U) == 0x80U;
}

// The well-formed sequences of RFC 3629 section 4: no overlong forms, no surrogates, nothing above
// U+10FFFF. All bytes behind the second one are continuation bytes.
struct Utf8Form {
  uint8_t first_low;
  uint8_t first_high;
  uint8_t second_low;
  uint8_t second_high;
  size_t length;
};
constexpr std::array<Utf8Form, 8> kUtf8Forms = {{
    {0xc2, 0xdf, 0x80, 0xbf, 2},
    {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3},
    {0xed, 0xed, 0x80, 0x9f, 3},
    {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4},
    {0xf1, 0xf3, 0x80, 0xbf, 4},
    {0xf4, 0xf4, 0x80, 0x8f, 4},
}};

bool Begins(ByteSpan rest, const Utf8Form& form) {
  return rest.size() >= form.length && rest[0] >= form.first_low && rest[0] <= form.first_high &&
         rest[1] >= form.second_low && rest[1] <= form.second_high;
}

// How many bytes the well-formed UTF-8 sequence at the beginning of `rest` has; 0 if there is none.
size_t Utf8SequenceLength(ByteSpan rest) {
  if (rest[0] < 0x80) {
    return 1;
  }
  const auto* const form = std::find_if(kUtf8Forms.begin(), kUtf8Forms.end(),
                                        [rest](const Utf8Form& f) { return Begins(rest, f); });
  if (form == kUtf8Forms.end()) {
    return 0;
  }
  const ByteSpan tail = rest.subspan(2, form->length - 2);
  return std::all_of(tail.begin(), tail.end(), IsContinuation) ? form->length : 0;
}

// U+0080 to U+009F: terminals take them for control sequences (0x9b is CSI).
bool IsC1Control(ByteSpan sequence) {
  return sequence.size() == 2 && sequence[0] == 0xc2 && sequence[1] < 0xa0;
}

void AppendJsonAscii(char c, std::string& out) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  const uint8_t byte = static_cast<uint8_t>(c);
  if (byte < 0x20 || byte == 0x7f) {
    out += "\\u00";
    AppendHexByte(byte, out);
    return;
  }
  out.push_back(c);
}

}  // namespace

std::string ToHex(ByteSpan bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    AppendHexByte(byte, out);
  }
  return out;
}

absl::StatusOr<std::string> FromHex(std::string_view text) {
  if (text.size() % 2 != 0) {
    return absl::InvalidArgumentError("hexadecimal text has an odd number of digits");
  }
  std::string out;
  out.reserve(text.size() / 2);
  for (size_t i = 0; i < text.size(); i += 2) {
    const std::optional<uint8_t> high = HexValue(text[i]);
    const std::optional<uint8_t> low = HexValue(text[i + 1]);
    if (!high.has_value() || !low.has_value()) {
      return absl::InvalidArgumentError(
          StrCat("not a hexadecimal digit at position ", high.has_value() ? i + 1 : i));
    }
    out.push_back(static_cast<char>((*high << 4U) | *low));
  }
  return out;
}

std::string Printable(std::string_view text, size_t limit) {
  std::string out;
  for (const uint8_t byte : AsBytes(text.substr(0, limit))) {
    if (byte < 0x20 || byte >= 0x7f || byte == '"' || byte == '\'' || byte == '\\') {
      out += "\\x";
      AppendHexByte(byte, out);
    } else {
      out.push_back(static_cast<char>(byte));
    }
  }
  if (text.size() > limit) {
    out += "...";
  }
  return out;
}

std::string JsonEscaped(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8SequenceLength(AsBytes(text.substr(i)));
    if (length == 1) {
      AppendJsonAscii(text[i], out);
    } else if (length == 0) {
      out += "\\ufffd";
    } else if (IsC1Control(AsBytes(text.substr(i, length)))) {
      out += "\\u00";
      AppendHexByte(static_cast<uint8_t>(text[i + 1]), out);
    } else {
      out.append(text.substr(i, length));
    }
    i += std::max<size_t>(length, 1);
  }
  return out;
}

std::string LineSafe(std::string_view text, size_t limit) {
  return LineSafe(text.substr(0, limit)) + (text.size() > limit ? "..." : "");
}

std::string LineSafe(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::max<size_t>(Utf8SequenceLength(AsBytes(text.substr(i))), 1);
    const std::string_view sequence = text.substr(i, length);
    const uint8_t first = static_cast<uint8_t>(sequence[0]);
    const bool unsafe =
        length == 1 ? first < 0x20 || first >= 0x7f : IsC1Control(AsBytes(sequence));
    if (unsafe) {
      for (const uint8_t byte : AsBytes(sequence)) {
        out += "\\x";
        AppendHexByte(byte, out);
      }
    } else {
      out.append(sequence);
    }
    i += length;
  }
  return out;
}

}  // namespace postern::base
