// SPDX-License-Identifier: Apache-2.0
#include "common/base/service_address.h"

#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

absl::Status Wrong(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(StrCat("'", Printable(text, 128), "' ", why));
}

}  // namespace

absl::StatusOr<ServiceAddress> ServiceAddress::Parse(std::string_view text) {
  const size_t equals = text.find('=');
  const absl::StatusOr<HostPort> address =
      HostPort::Parse(text.substr(0, equals),
                      {.what = "service",
                       .also = "one of these with =PORT, if the workload's port is another one"});
  if (!address.ok()) {
    return address.status();
  }
  const auto target =
      equals == std::string_view::npos ? address->port : ParsePort(text.substr(equals + 1));
  if (!target.has_value()) {
    return Wrong(text, "is no service: behind its = stands no port from 1 to 65535");
  }
  if (address->ip->IsLoopback() || address->ip->IsUnspecified()) {
    return Wrong(text, "is no service: its address means another host to everybody");
  }
  return ServiceAddress{*address->ip, *address->port, *target};
}

std::string ServiceAddress::ToString() const {
  std::string text = JoinHostPort(ip, port);
  if (target_port != port) {
    StrAppend(text, "=", target_port);
  }
  return text;
}

}  // namespace postern::base
