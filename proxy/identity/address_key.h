// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

#include "common/base/host_port.h"
#include "common/base/ip.h"

namespace postern::identity {

// A destination that is asked for. Port 0: any port of the address. A value.
struct AddressKey {
  base::IpAddress ip;
  uint16_t port = 0;

  std::string ToString() const { return base::JoinHostPort(ip, port); }

  auto operator<=>(const AddressKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const AddressKey& key) {
    return H::combine(std::move(h), key.ip, key.port);
  }
};

}  // namespace postern::identity
