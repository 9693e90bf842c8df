// SPDX-License-Identifier: Apache-2.0
#include "common/base/service_address.h"

#include <optional>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

absl::Status Wrong(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(StrCat("'", Printable(text, 128), "' ", why));
}

std::optional<IpAddress> HostOf(std::string_view host) {
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  const auto ip = IpAddress::Parse(host);
  // Without brackets the last group of an IPv6 address could be taken for the port.
  const bool has_colon = host.find(':') != std::string_view::npos;
  return ip.ok() && bracketed == has_colon ? std::optional(*ip) : std::nullopt;
}

}  // namespace

absl::StatusOr<ServiceAddress> ServiceAddress::Parse(std::string_view text) {
  constexpr std::string_view kForms =
      "is no service; write IP:PORT or [v6]:PORT, with =PORT behind it if the workload's port is "
      "another one";
  const size_t equals = text.find('=');
  const std::string_view address = text.substr(0, equals);
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) {
    return Wrong(text, kForms);
  }
  const auto ip = HostOf(address.substr(0, colon));
  const auto port = ParseNumber<uint16_t>(address.substr(colon + 1));
  const auto target =
      equals == std::string_view::npos ? port : ParseNumber<uint16_t>(text.substr(equals + 1));
  if (!ip.has_value() || port.value_or(0) == 0 || target.value_or(0) == 0) {
    return Wrong(text, kForms);
  }
  if (ip->IsLoopback() || ip->IsUnspecified()) {
    return Wrong(text, "is no service: its address means another host to everybody");
  }
  return ServiceAddress{*ip, *port, *target};
}

std::string ServiceAddress::ToString() const {
  std::string text = ip.is_v4() ? ip.ToString() : StrCat("[", ip.ToString(), "]");
  StrAppend(text, ":", port);
  if (target_port != port) {
    StrAppend(text, "=", target_port);
  }
  return text;
}

}  // namespace postern::base
