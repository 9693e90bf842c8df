// SPDX-License-Identifier: Apache-2.0
#include "common/http/request_head.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/strings.h"

namespace postern::http {
namespace {

constexpr std::string_view kHttp = "http://";

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
  RequestHead head{words[0], words[1], {}, false};
  if (absl::StartsWithIgnoreCase(base::ToAbsl(head.path), base::ToAbsl(kHttp))) {
    const std::string_view rest = head.path.substr(kHttp.size());
    head.host = rest.substr(0, rest.find_first_of("/?"));
    head.path = rest.substr(head.host.size());
    if (head.host.empty()) {
      return Wrong("the request's target has no host");
    }
    if (!head.path.starts_with('/')) {
      head.path = "/";
    }
  }
  if (!head.path.starts_with('/') || !IsVisible(words[1])) {
    return Wrong("the request's target is no path");
  }
  head.path = head.path.substr(0, head.path.find('?'));
  return head;
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
    if (head.host.empty()) {  // else the target says it, which counts alone
      head.host = value;
    }
  } else if (IsName(name, "Transfer-Encoding") ||
             (IsName(name, "Content-Length") && value != "0")) {
    head.has_body = true;
  }
  return absl::OkStatus();
}

}  // namespace

size_t FindHeadEnd(std::string_view received, size_t searched) {
  constexpr size_t kOverlap = 2;  // of a blank line, which may be cut before its last byte
  size_t at = searched - std::min(searched, kOverlap);
  while ((at = received.find('\n', at)) != std::string_view::npos) {
    const std::string_view next = received.substr(++at);
    if (next.starts_with('\n')) {
      return at + 1;
    }
    if (next.starts_with("\r\n")) {
      return at + 2;
    }
  }
  return 0;
}

absl::StatusOr<RequestHead> ParseRequestHead(std::string_view head) {
  absl::StatusOr<RequestHead> parsed = Wrong("an empty head");
  bool host_seen = false;
  for (bool first = true; !head.empty(); first = false) {
    const size_t end = head.find('\n');
    if (end == std::string_view::npos) {
      return Wrong("a line without an end");
    }
    std::string_view line = head.substr(0, end);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    head.remove_prefix(end + 1);
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
