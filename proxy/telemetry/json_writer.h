// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace postern::telemetry {

// Appends `text` as a JSON string, quotes included, in ASCII only: control bytes, quotes,
// backslashes and everything above 0x7E become escapes, bytes that are no UTF-8 become U+FFFD. What
// a peer put into a name can therefore neither end the line nor steer a terminal.
void AppendJsonString(std::string& out, std::string_view text);

// Writes one JSON object, member after member, into a string of the caller. A value of one thread.
class JsonObject {
 public:
  explicit JsonObject(std::string& out) : out_(out) { out_ += '{'; }
  JsonObject(const JsonObject&) = delete;
  JsonObject& operator=(const JsonObject&) = delete;
  ~JsonObject() { out_ += '}'; }

  void Text(std::string_view key, std::string_view value);
  // Nothing at all for an empty value.
  void TextIfAny(std::string_view key, std::string_view value);
  void Number(std::string_view key, int64_t value);
  void Unsigned(std::string_view key, uint64_t value);
  void Boolean(std::string_view key, bool value);
  // A number that is JSON already, such as "0.000001".
  void Verbatim(std::string_view key, std::string_view json);

 private:
  void Key(std::string_view key);
  std::string& out_;
  bool empty_ = true;
};

}  // namespace postern::telemetry
