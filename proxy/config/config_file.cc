// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/config_file.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::config {
namespace {

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsBareKey(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || IsDigit(c) || c == '-' || c == '_';
}

// Walks over the text once. Each Read method leaves the position behind what it read.
class Reader {
 public:
  Reader(std::string_view text, std::string_view file_name) : rest_(text), file_name_(file_name) {}

  absl::StatusOr<std::vector<FileSetting>> ReadAll() {
    std::vector<FileSetting> settings;
    absl::flat_hash_set<std::string> keys;
    for (SkipToValue(); !rest_.empty(); SkipToValue()) {
      auto setting = ReadSetting();
      if (!setting.ok()) {
        return setting.status();
      }
      if (!keys.insert(setting->key).second) {
        return Fault(setting->line, base::StrCat(setting->key,
                                                 ": stands twice; for several values "
                                                 "write a list: [\"a\", \"b\"]"));
      }
      settings.push_back(*std::move(setting));
    }
    return settings;
  }

 private:
  absl::Status Fault(int line, std::string_view what) const {
    return absl::InvalidArgumentError(base::StrCat(file_name_, ":", line, ": ", what));
  }
  absl::Status Fault(std::string_view what) const { return Fault(line_, what); }

  char Peek() const { return rest_.empty() ? '\0' : rest_.front(); }
  bool At(std::string_view text) const { return rest_.starts_with(text); }
  bool Take(char c) {
    if (Peek() != c || rest_.empty()) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  void SkipBlanks() {
    while (Peek() == ' ' || Peek() == '\t') {
      rest_.remove_prefix(1);
    }
  }
  void SkipComment() {
    if (Peek() == '#') {
      rest_.remove_prefix(std::min(rest_.find('\n'), rest_.size()));
    }
  }
  bool TakeNewline() {
    if (At("\r\n")) {
      rest_.remove_prefix(1);
    }
    if (!Take('\n')) {
      return false;
    }
    ++line_;
    return true;
  }
  // Over blanks, comments and ends of lines.
  void SkipToValue() {
    do {
      SkipBlanks();
      SkipComment();
    } while (TakeNewline());
  }

  absl::StatusOr<FileSetting> ReadSetting() {
    FileSetting setting;
    setting.line = line_;
    if (Peek() == '[') {
      return Fault("tables are not used here; write the flags' names as keys, name = value");
    }
    auto key = ReadKey();
    if (!key.ok()) {
      return key.status();
    }
    setting.key = *std::move(key);
    SkipBlanks();
    if (!Take('=')) {
      return Fault(base::StrCat(setting.key, ": '=' is missing; write name = value"));
    }
    SkipBlanks();
    if (const absl::Status status = ReadValues(setting); !status.ok()) {
      return status;
    }
    SkipBlanks();
    SkipComment();
    if (!rest_.empty() && !TakeNewline()) {
      return Fault(base::StrCat(setting.key, ": something follows the value; end the line there"));
    }
    return setting;
  }

  absl::StatusOr<std::string> ReadKey() {
    if (Peek() == '"' || Peek() == '\'') {
      return ReadString();
    }
    size_t size = 0;
    while (size < rest_.size() && IsBareKey(rest_[size])) {
      ++size;
    }
    if (size == 0) {
      return Fault("a line begins with the name of a flag: name = value");
    }
    std::string key(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return key;
  }

  absl::Status ReadValues(FileSetting& setting) {
    if (!Take('[')) {
      return ReadOne(setting);
    }
    for (SkipToValue(); !Take(']'); SkipToValue()) {
      if (rest_.empty()) {
        return Fault(setting.line, base::StrCat(setting.key, ": the list is not closed by ']'"));
      }
      if (const absl::Status status = ReadOne(setting); !status.ok()) {
        return status;
      }
      SkipToValue();
      if (!Take(',') && Peek() != ']') {
        return Fault(base::StrCat(setting.key, ": the values of a list are separated by ','"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadOne(FileSetting& setting) {
    auto value = Peek() == '"' || Peek() == '\'' ? ReadString() : ReadBareValue(setting.key);
    if (!value.ok()) {
      return value.status();
    }
    setting.values.push_back(*std::move(value));
    return absl::OkStatus();
  }

  // true, false or an integer.
  absl::StatusOr<std::string> ReadBareValue(std::string_view key) {
    const size_t size = std::min(rest_.find_first_of(" \t\r\n,]#"), rest_.size());
    std::string value(rest_.substr(0, size));
    const bool number = !value.empty() && IsDigit(value.front()) &&
                        std::ranges::all_of(value, [](char c) { return IsBareKey(c) && c != '-'; });
    if (value != "true" && value != "false" && !number) {
      return Fault(base::StrCat(key, ": '", base::Printable(value, 64),
                                "' is no value; write texts in quotes, as in \"5s\""));
    }
    rest_.remove_prefix(size);
    std::erase(value, '_');
    return value;
  }

  absl::StatusOr<std::string> ReadString() {
    const char quote = Peek();
    if (At("\"\"\"") || At("'''")) {
      return Fault("texts over several lines are not used here; write a list of texts");
    }
    Take(quote);
    std::string text;
    while (!Take(quote)) {
      if (rest_.empty() || Peek() == '\n') {
        return Fault(base::StrCat("the text is not closed by ", std::string(1, quote)));
      }
      if (quote == '"' && Peek() == '\\') {
        if (const absl::Status status = ReadEscape(text); !status.ok()) {
          return status;
        }
        continue;
      }
      text += Peek();
      rest_.remove_prefix(1);
    }
    return text;
  }

  absl::Status ReadEscape(std::string& text) {
    constexpr std::string_view kLetters = "ntr\"\\";
    constexpr std::string_view kMeanings = "\n\t\r\"\\";
    rest_.remove_prefix(1);
    const size_t which = rest_.empty() ? std::string_view::npos : kLetters.find(Peek());
    if (which == std::string_view::npos) {
      return Fault("an unknown escape; known are \\n \\t \\r \\\" \\\\, or use single quotes");
    }
    text += kMeanings[which];
    rest_.remove_prefix(1);
    return absl::OkStatus();
  }

  std::string_view rest_;
  std::string_view file_name_;
  int line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<FileSetting>> ParseConfigFile(std::string_view text,
                                                         std::string_view file_name) {
  return Reader(text, file_name).ReadAll();
}

}  // namespace postern::config
