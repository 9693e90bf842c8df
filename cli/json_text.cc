// SPDX-License-Identifier: Apache-2.0
#include "cli/json_text.h"

#include <nlohmann/json.hpp>

#include "common/base/bytes.h"

namespace postern::cli {
namespace {

using nlohmann::ordered_json;

std::string Scalar(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Objects and lists nest by two spaces; an item of a list begins with "- ".
void Print(const ordered_json& value, const std::string& indent, std::ostream& out) {
  for (const auto& [key, child] : value.items()) {
    const std::string head = value.is_array() ? indent + "-" : indent + key + ":";
    if (!child.is_structured()) {
      out << head << " " << Scalar(child) << "\n";
    } else if (child.empty()) {
      out << head << (child.is_array() ? " none\n" : "\n");
    } else {
      out << head << "\n";
      Print(child, indent + "  ", out);
    }
  }
}

}  // namespace

absl::Status PrintJsonPage(const std::string& page, const std::string& output, std::ostream& out) {
  const ordered_json document = ordered_json::parse(page, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return absl::InternalError("the answer is not JSON; is this the address of a Postern daemon?");
  }
  if (output == "json" || !document.is_structured()) {
    out << document.dump(2) << "\n";
  } else {
    Print(document, "", out);
  }
  return absl::OkStatus();
}

}  // namespace postern::cli
