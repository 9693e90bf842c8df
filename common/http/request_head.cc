// SPDX-License-Identifier: Apache-2.0
#include "common/http/request_head.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/strings.h"

namespace postern::http {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kHeadEnd = "\r\n\r\n";

absl::Status Wrong(std::string_view what) {
  return absl::InvalidArgumentError(base::ToAbsl(what));
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return letter || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

bool IsVisible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7F;
  });
}

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  return first == std::string_view::npos
             ? std::string_view()
             : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool IsName(std::string_view name, std::string_view expected) {
  return absl::EqualsIgnoreCase(base::ToAbsl(name), base::ToAbsl(expected));
}

absl::StatusOr<RequestHead> ParseRequestLine(std::string_view line) {
  const std::vector<std::string_view> words = base::Split(line, ' ');
  if (words.size() != 3 || !IsToken(words[0])) {
    return Wrong("not an HTTP request line");
  }
  if (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0") {
    return Wrong("neither HTTP/1.1 nor HTTP/1.0");
  }
  if (!words[1].starts_with('/') || !IsVisible(words[1])) {
    return Wrong("the request's target is no path");
  }
  return RequestHead{words[0], words[1].substr(0, words[1].find('?')), {}, false};
}

absl::Status AddHeader(std::string_view line, bool& host_seen, RequestHead& head) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) {
    return Wrong("a header line without a name");
  }
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (IsName(name, "Host")) {
    if (host_seen) {
      return Wrong("more than one Host header");
    }
    host_seen = true;
    head.host = value;
  } else if (IsName(name, "Transfer-Encoding") ||
             (IsName(name, "Content-Length") && value != "0")) {
    head.has_body = true;
  }
  return absl::OkStatus();
}

}  // namespace

size_t FindHeadEnd(std::string_view received, size_t searched) {
  const size_t overlap = std::min(searched, kHeadEnd.size() - 1);
  const size_t at = received.find(kHeadEnd, searched - overlap);
  return at == std::string_view::npos ? 0 : at + kHeadEnd.size();
}

absl::StatusOr<RequestHead> ParseRequestHead(std::string_view head) {
  absl::StatusOr<RequestHead> parsed = Wrong("an empty head");
  bool host_seen = false;
  for (bool first = true; !head.empty(); first = false) {
    const size_t end = head.find(kLineEnd);
    if (end == std::string_view::npos) {
      return Wrong("a line without an end");
    }
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + kLineEnd.size());
    if (HasControl(line)) {
      return Wrong("a control character in a line");
    }
    if (first) {
      parsed = ParseRequestLine(line);
      if (!parsed.ok()) {
        return parsed;
      }
    } else if (line.empty()) {
      return head.empty() ? parsed : Wrong("bytes behind the head");
    } else if (absl::Status added = AddHeader(line, host_seen, *parsed); !added.ok()) {
      return added;
    }
  }
  return parsed.ok() ? Wrong("no blank line") : parsed.status();
}

}  // namespace postern::http
