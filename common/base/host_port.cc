// SPDX-License-Identifier: Apache-2.0
#include "common/base/host_port.h"

#include <vector>

#include "common/base/bytes.h"
#include "common/base/host_name.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

constexpr size_t kMostShown = 128;
constexpr std::string_view kPortMissing = "its port is missing";
constexpr std::string_view kHostMissing = "its host is missing";

// Where a text is cut, before its parts are looked at.
struct Pieces {
  std::string_view host;
  std::optional<std::string_view> port;
  bool v6 = false;  // in brackets, or it cannot be anything else
};

// What of a text is wrong; the rest of the message is the same for all.
absl::Status Fault(std::string_view reason) {
  return absl::InvalidArgumentError(ToAbsl(reason));
}

// "IP:port, [v6]:port, name:port or unix:/path".
std::string Forms(const HostPortRules& rules) {
  std::vector<std::string_view> forms = {"IP:port", "[v6]:port"};
  if (rules.names) {
    forms.push_back("name:port");
  }
  if (rules.no_port) {
    forms.push_back("one of these without its port");
  }
  if (rules.no_host) {
    forms.push_back(":port");
  }
  if (!rules.also.empty()) {
    forms.push_back(rules.also);
  }
  std::string text(forms.front());
  for (size_t i = 1; i < forms.size(); ++i) {
    StrAppend(text, i + 1 == forms.size() ? " or " : ", ", forms[i]);
  }
  return text;
}

absl::StatusOr<uint16_t> ReadPort(std::string_view text, bool port_0) {
  if (text.empty()) {
    return Fault(kPortMissing);
  }
  if (text.size() > 1 && text.front() == '0') {
    return Fault("its port begins with a zero");
  }
  const auto port = ParseNumber<uint16_t>(text);
  if (!port.has_value() || (*port == 0 && !port_0)) {
    return Fault(StrCat("its port is no number from ", port_0 ? 0 : 1, " to 65535"));
  }
  return *port;
}

absl::StatusOr<Pieces> CutBracketed(std::string_view text) {
  const size_t end = text.find(']');
  if (end == std::string_view::npos) {
    return Fault("its bracket is not closed");
  }
  const std::string_view behind = text.substr(end + 1);
  if (!behind.empty() && behind.front() != ':') {
    return Fault("something else than :port stands behind its bracket");
  }
  Pieces pieces{text.substr(1, end - 1), std::nullopt, true};
  if (!behind.empty()) {
    pieces.port = behind.substr(1);
  }
  return pieces;
}

// More than one colon and no brackets: an IPv6 address alone, or nothing that is sure.
absl::StatusOr<Pieces> CutBareV6(std::string_view text, const HostPortRules& rules) {
  const size_t last = text.rfind(':');
  const bool is_ip = IpAddress::Parse(text).ok();
  const bool with_port =
      IpAddress::Parse(text.substr(0, last)).ok() && ReadPort(text.substr(last + 1), true).ok();
  if (!is_ip && !with_port) {
    return Fault("a host with a colon is an IPv6 address and stands in brackets");
  }
  if (with_port) {
    return Fault("without brackets it is ambiguous where the IPv6 address ends");
  }
  if (!rules.no_port) {
    return Fault(kPortMissing);
  }
  if (!rules.bare_v6) {
    return Fault("an IPv6 address stands in brackets");
  }
  return Pieces{text, std::nullopt, true};
}

absl::StatusOr<Pieces> Cut(std::string_view text, const HostPortRules& rules) {
  if (text.starts_with('[')) {
    return CutBracketed(text);
  }
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return Pieces{text, std::nullopt, false};
  }
  if (text.rfind(':') != colon) {
    return CutBareV6(text, rules);
  }
  return Pieces{text.substr(0, colon), text.substr(colon + 1), false};
}

absl::Status CheckName(std::string_view name, const HostPortRules& rules) {
  if (!rules.names) {
    return Fault("its host is no IP address");
  }
  if (name.ends_with('.') && name.size() > 1) {
    if (!rules.final_dot) {
      return Fault("its name ends in a dot");
    }
    name.remove_suffix(1);
  }
  return IsHostName(name) ? absl::OkStatus()
                          : Fault("its host is neither an IP address nor a name");
}

absl::Status ReadHost(const Pieces& pieces, const HostPortRules& rules, HostPort& parsed) {
  parsed.host = pieces.host;
  if (pieces.v6 && rules.zone) {
    parsed.host = pieces.host.substr(0, pieces.host.find('%'));
  }
  if (parsed.host.empty()) {
    return rules.no_host && !pieces.v6 && parsed.port.has_value() ? absl::OkStatus()
                                                                  : Fault(kHostMissing);
  }
  const auto ip = IpAddress::Parse(parsed.host);
  if (pieces.v6 && (!ip.ok() || parsed.host.find(':') == std::string_view::npos)) {
    return Fault("what stands in brackets is no IPv6 address");
  }
  if (!ip.ok()) {
    return CheckName(parsed.host, rules);
  }
  parsed.ip = *ip;
  return absl::OkStatus();
}

absl::StatusOr<HostPort> Read(std::string_view text, const HostPortRules& rules) {
  const absl::StatusOr<Pieces> pieces = Cut(text, rules);
  if (!pieces.ok()) {
    return pieces.status();
  }
  HostPort parsed;
  if (pieces->port.has_value()) {
    const absl::StatusOr<uint16_t> port = ReadPort(*pieces->port, rules.port_0);
    if (!port.ok()) {
      return port.status();
    }
    parsed.port = *port;
  } else if (!rules.no_port) {
    return Fault(kPortMissing);
  }
  if (absl::Status host = ReadHost(*pieces, rules, parsed); !host.ok()) {
    return host;
  }
  return parsed;
}

}  // namespace

absl::StatusOr<HostPort> HostPort::Parse(std::string_view text, const HostPortRules& rules) {
  absl::StatusOr<HostPort> parsed = Read(text, rules);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(StrCat("'", Printable(text, kMostShown), "' is no ",
                                             rules.what, ": ", Message(parsed.status()), "; write ",
                                             Forms(rules)));
  }
  return parsed;
}

std::optional<uint16_t> ParsePort(std::string_view text) {
  const absl::StatusOr<uint16_t> port = ReadPort(text, false);
  return port.ok() ? std::optional(*port) : std::nullopt;
}

std::string JoinHostPort(std::string_view host, uint16_t port) {
  const bool v6 = host.find(':') != std::string_view::npos;
  return StrCat(v6 ? "[" : "", host, v6 ? "]:" : ":", port);
}

std::string JoinHostPort(const IpAddress& ip, uint16_t port) {
  return JoinHostPort(ip.ToString(), port);
}

}  // namespace postern::base
