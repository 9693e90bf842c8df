// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/ip.h"

namespace postern::base {

// An address at which several workloads are reached as one, as applications dial it, and the port
// at which each of them takes that. A value.
struct ServiceAddress {
  IpAddress ip;              // neither loopback nor unspecified
  uint16_t port = 0;         // never 0
  uint16_t target_port = 0;  // of the workloads; never 0

  // "10.96.0.10:5432", "[2001:db8::10]:5432"; "10.96.0.10:5432=15432" where the workloads' port is
  // another one. InvalidArgument otherwise.
  static absl::StatusOr<ServiceAddress> Parse(std::string_view text);

  std::string ToString() const;  // as it could be parsed again

  auto operator<=>(const ServiceAddress&) const = default;
};

}  // namespace postern::base
