// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/base/close_reason.h"
#include "proxy/request/destination.h"

namespace postern::request {

// RFC 1928 section 6.
enum SocksReply : uint8_t {
  kSocksGranted = 0,
  kSocksFailed = 1,
  kSocksNotAllowed = 2,
  kSocksNetworkUnreachable = 3,
  kSocksHostUnreachable = 4,
  kSocksRefused = 5,
  kSocksTimedOut = 6,  // "TTL expired", which is what others say for a time-out, too
  kSocksNoSuchCommand = 7,
  kSocksNoSuchAddressType = 8,
};

// The header that holds the close reason's token in an HTTP refusal.
inline constexpr char kReasonHeader[] = "Postern-Close-Reason";

// "The connection stands; what follows is yours." Pure, like all here.
std::string Granted(Protocol protocol);

// The refusal that fits how the connection ended. `error`: the system's errno where a connect
// failed, else 0. Nothing of a peer's choosing is in it.
std::string Refusal(Protocol protocol, base::CloseReason reason, int error);

// The two that the refusals are made of: a SOCKS5 reply with this code, an HTTP response with this
// status about `reason`.
std::string SocksReplyOf(uint8_t code);
std::string HttpRefusal(int status, base::CloseReason reason);

}  // namespace postern::request
