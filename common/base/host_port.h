// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/ip.h"

namespace postern::base {

// What a place takes beside IP:port and [v6]:port with a port from 1 to 65535, and how its errors
// name that. A value; the texts are literals.
struct HostPortRules {
  bool names = false;      // also name:port (IsHostName)
  bool final_dot = false;  // a name may end in the dot that says that no search domain is tried
  bool no_host = false;    // also :port
  bool no_port = false;    // also a host alone; an IPv6 address alone in brackets
  bool bare_v6 = false;    // with no_port: an IPv6 address alone also without brackets, where its
                           // end could not be meant for a port
  bool port_0 = false;     // also port 0
  bool zone = false;       // also [v6%zone]; the zone is left out
  std::string_view what = "address";  // "'...' is no <what>: "
  std::string_view also = "";         // another form, which the place reads before it asks here
};

// A host and a port that are written as one text. The one place where such a text is taken apart:
// configuration, requests and stored lists differ in their rules alone. A value, valid as long as
// the text.
struct HostPort {
  std::string_view host;         // as it is written, without brackets and zone; empty: no_host
  std::optional<IpAddress> ip;   // nullopt: the host is a name or missing
  std::optional<uint16_t> port;  // nullopt: no_port

  // An IPv6 address, and nothing else, stands in brackets: without them its last group could be the
  // port. A port is written in digits without a sign or a leading zero. InvalidArgument otherwise:
  // what is wrong, and the forms that `rules` take. Pure.
  static absl::StatusOr<HostPort> Parse(std::string_view text, const HostPortRules& rules = {});
};

// A port from 1 to 65535 alone, as Parse takes it; nullopt for anything else. Pure.
std::optional<uint16_t> ParsePort(std::string_view text);

// The reverse of HostPort::Parse: a host with a colon in it is an IPv6 address and gets its
// brackets. Pure.
std::string JoinHostPort(std::string_view host, uint16_t port);
std::string JoinHostPort(const IpAddress& ip, uint16_t port);

}  // namespace postern::base
