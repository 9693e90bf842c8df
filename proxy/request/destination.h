// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/base/host_port.h"
#include "common/base/ip.h"

namespace postern::request {

// How an application asks an outbound proxy port for a destination.
enum class Protocol : uint8_t {
  kSocks5,       // RFC 1928
  kHttpConnect,  // RFC 9110 section 9.3.6, in HTTP/1
};

// What it asks for. A value.
struct Destination {
  std::string name;    // of a host, in its one spelling; empty: an address was asked for
  std::string lookup;  // the name as it is to be resolved: with its final dot, if it had one
  base::IpAddress ip;  // without a name; never unspecified
  uint16_t port = 0;   // never 0

  std::string ToString() const {
    return name.empty() ? base::JoinHostPort(ip, port) : base::JoinHostPort(name, port);
  }
};

}  // namespace postern::request
