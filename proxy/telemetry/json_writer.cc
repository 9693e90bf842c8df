// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/json_writer.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace postern::telemetry {
namespace {

struct CodePoint {
  uint32_t value = 0xFFFD;
  size_t length = 1;
};

// One code point of UTF-8 (RFC 3629); U+FFFD of length 1 where the bytes are none.
CodePoint Decode(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  size_t length = 0;
  uint32_t value = 0;
  uint32_t least = 0;  // shorter forms exist below it
  if (first < 0x80) {
    return {first, 1};
  }
  if ((first & 0xE0) == 0xC0) {
    length = 2, value = first & 0x1FU, least = 0x80;
  } else if ((first & 0xF0) == 0xE0) {
    length = 3, value = first & 0x0FU, least = 0x800;
  } else if ((first & 0xF8) == 0xF0) {
    length = 4, value = first & 0x07U, least = 0x10000;
  } else {
    return {};
  }
  if (text.size() < length) {
    return {};
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return {};
    }
    value = value << 6U | (byte(i) & 0x3FU);
  }
  if (value < least || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
    return {};
  }
  return {value, length};
}

void AppendUnicodeEscape(std::string& out, uint32_t unit) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const std::array<char, 6> text = {'\\',
                                    'u',
                                    kDigits[unit >> 12U & 0xFU],
                                    kDigits[unit >> 8U & 0xFU],
                                    kDigits[unit >> 4U & 0xFU],
                                    kDigits[unit & 0xFU]};
  out.append(text.data(), text.size());
}

}  // namespace

void AppendJsonString(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const CodePoint point = Decode(text);
    text.remove_prefix(point.length);
    if (point.value == '"' || point.value == '\\') {
      out += '\\';
      out += static_cast<char>(point.value);
    } else if (point.value >= 0x20 && point.value < 0x7F) {
      out += static_cast<char>(point.value);
    } else if (point.value == '\n') {
      out += "\\n";
    } else if (point.value == '\t') {
      out += "\\t";
    } else if (point.value <= 0xFFFF) {
      AppendUnicodeEscape(out, point.value);
    } else {
      const uint32_t rest = point.value - 0x10000;
      AppendUnicodeEscape(out, 0xD800 + (rest >> 10U));
      AppendUnicodeEscape(out, 0xDC00 + (rest & 0x3FFU));
    }
  }
  out += '"';
}

void JsonObject::Key(std::string_view key) {
  if (!empty_) {
    out_ += ',';
  }
  empty_ = false;
  AppendJsonString(out_, key);
  out_ += ':';
}

void JsonObject::Text(std::string_view key, std::string_view value) {
  Key(key);
  AppendJsonString(out_, value);
}

void JsonObject::TextIfAny(std::string_view key, std::string_view value) {
  if (!value.empty()) {
    Text(key, value);
  }
}

void JsonObject::Number(std::string_view key, int64_t value) {
  Key(key);
  absl::StrAppend(&out_, value);
}

void JsonObject::Unsigned(std::string_view key, uint64_t value) {
  Key(key);
  absl::StrAppend(&out_, value);
}

void JsonObject::Boolean(std::string_view key, bool value) {
  Verbatim(key, value ? "true" : "false");
}

void JsonObject::Verbatim(std::string_view key, std::string_view json) {
  Key(key);
  out_ += json;
}

}  // namespace postern::telemetry
