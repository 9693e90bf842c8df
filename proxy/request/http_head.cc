// SPDX-License-Identifier: Apache-2.0
#include "proxy/request/http_head.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/match.h"
#include "common/base/host_name.h"
#include "common/base/host_port.h"
#include "common/base/ip.h"
#include "common/base/strings.h"

namespace postern::request {
namespace {

constexpr size_t kMaxFields = 100;
constexpr std::string_view kTokenExtra = "!#$%&'*+-.^_`|~";

bool IsTokenByte(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         kTokenExtra.find(c) != std::string_view::npos;
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, IsTokenByte);
}

// RFC 9110 section 5.5: visible ASCII, obs-text, blanks and tabs.
bool IsFieldByte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte == '\t' || (byte >= 0x20 && byte != 0x7F);
}

bool IsNamed(std::string_view field, std::string_view name) {
  return absl::EqualsIgnoreCase(base::ToAbsl(field), base::ToAbsl(name));
}

std::string_view TrimBlanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) {
    return "";
  }
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

// What of the header fields decides whether there is one meaning.
struct Fields {
  size_t hosts = 0;

  // nullopt: the field is fine.
  std::optional<HttpFault> Take(std::string_view line) {
    const size_t colon = line.find(':');
    const std::string_view name = line.substr(0, colon == std::string_view::npos ? 0 : colon);
    // Blanks before the colon and folded lines are among what this refuses (RFC 9112 section 5).
    if (!IsToken(name)) {
      return HttpFault{400, "a header line without a name"};
    }
    const std::string_view value = TrimBlanks(line.substr(colon + 1));
    if (!std::ranges::all_of(value, IsFieldByte)) {
      return HttpFault{400, "a control character in a header"};
    }
    if (IsNamed(name, "host")) {
      ++hosts;
    }
    // A CONNECT has no content (RFC 9110 section 9.3.6): what claims some could be read in two
    // ways.
    if (IsNamed(name, "transfer-encoding") || (IsNamed(name, "content-length") && value != "0")) {
      return HttpFault{400, "a CONNECT with content"};
    }
    return std::nullopt;
  }
};

struct RequestLine {
  Destination destination;
  bool needs_host = true;  // HTTP/1.1
};

std::variant<RequestLine, HttpFault> ParseRequestLine(std::string_view line) {
  const auto parts = base::Split(line, ' ');
  if (parts.size() != 3 || !IsToken(parts[0])) {
    return HttpFault{400, "no request line of HTTP"};
  }
  if (!parts[2].starts_with("HTTP/")) {
    return HttpFault{400, "no request line of HTTP"};
  }
  if (parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0") {
    return HttpFault{505, "a version other than HTTP/1.1 and HTTP/1.0"};
  }
  if (parts[0] != "CONNECT") {
    return HttpFault{405, "a method other than CONNECT"};
  }
  std::optional<Destination> destination = ParseAuthority(parts[1]);
  if (!destination.has_value()) {
    return HttpFault{400, "the target of the CONNECT is no host:port"};
  }
  return RequestLine{*std::move(destination), parts[2] == "HTTP/1.1"};
}

}  // namespace

std::optional<Destination> ParseHost(std::string_view host, uint16_t port) {
  if (port == 0) {
    return std::nullopt;
  }
  Destination destination;
  destination.port = port;
  if (const auto ip = base::IpAddress::Parse(host); ip.ok()) {
    destination.ip = *ip;
    return ip->IsUnspecified() ? std::nullopt : std::optional(destination);
  }
  destination.name = base::CanonicalHostName(host);
  if (!base::IsHostName(destination.name)) {
    return std::nullopt;
  }
  destination.lookup = destination.name + (host.ends_with('.') ? "." : "");
  return destination;
}

std::optional<Destination> ParseAuthority(std::string_view authority) {
  const auto parsed = base::HostPort::Parse(authority, {.names = true, .final_dot = true});
  return parsed.ok() ? ParseHost(parsed->host, *parsed->port) : std::nullopt;
}

std::variant<Destination, HttpFault> ParseConnectHead(std::string_view head) {
  size_t end = head.find("\r\n");
  std::variant<RequestLine, HttpFault> line = ParseRequestLine(head.substr(0, end));
  if (auto* const fault = std::get_if<HttpFault>(&line); fault != nullptr) {
    return *fault;
  }
  Fields fields;
  for (size_t count = 0; end != std::string_view::npos; ++count) {
    if (count == kMaxFields) {
      return HttpFault{431, "too many headers"};
    }
    head.remove_prefix(end + 2);
    end = head.find("\r\n");
    if (std::optional<HttpFault> fault = fields.Take(head.substr(0, end)); fault.has_value()) {
      return *fault;
    }
  }
  // RFC 9112 section 3.2.
  auto& request = std::get<RequestLine>(line);
  if (fields.hosts > 1 || (request.needs_host && fields.hosts == 0)) {
    return HttpFault{400, "a CONNECT without its one Host header"};
  }
  return std::move(request.destination);
}

}  // namespace postern::request
