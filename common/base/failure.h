// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/base/close_reason.h"

namespace postern::base {

// Which way a connection goes through this proxy.
enum class Direction : uint8_t { kInbound, kOutbound };
inline constexpr size_t kDirectionCount = 2;
std::string_view Token(Direction direction) noexcept;  // "inbound", "outbound"

// Which end of a session a fact belongs to: downstream opened the connection, upstream is dialled.
enum class Side : uint8_t { kDownstream, kUpstream };
inline constexpr size_t kSideCount = 2;
std::string_view Token(Side side) noexcept;  // "downstream", "upstream"

// How and why a session ended, with everything that is known about it. A value; made once by the
// step that failed and carried to the access log, the metrics and /failures.
struct Failure {
  CloseReason reason = CloseReason::kInternal;
  Side side = Side::kDownstream;
  absl::Status detail;  // a sentence for a person; never holds a secret
  std::string peer_id;  // the peer's SPIFFE ID as far as known, else empty
  int x509_error = 0;   // X509_V_ERR_*; 0 where no chain was judged
  int x509_depth = -1;  // depth of the certificate that failed, leaf 0; -1 unknown
  int alert_sent = -1;  // TLS AlertDescription (RFC 8446 section 6); -1 none
  int alert_received = -1;
};

}  // namespace postern::base
