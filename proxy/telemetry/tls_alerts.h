// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace postern::telemetry {

// The name of a TLS AlertDescription (RFC 8446 section 6), such as "bad_certificate" for 42; empty
// for a number that has none.
std::string_view TlsAlertName(int alert) noexcept;

}  // namespace postern::telemetry
