// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "common/base/failure.h"
#include "proxy/net/stream.h"

namespace postern::session {

// What a failed recv or send means for the session; `what` is "reading" or "writing".
base::Failure SocketFailure(const net::IoResult& io, const char* what);

// Whether the peer has reset the connection: looks (MSG_PEEK), consumes nothing.
bool PeerHasReset(const net::Stream& stream);

// Whether the peer has said something that waits to be read; an end or a reset is nothing. Consumes
// nothing.
bool HasInput(const net::Stream& stream);

// Stream::Unacknowledged, zero where the socket cannot tell (unix).
std::chrono::milliseconds Unacknowledged(const net::Stream& stream);

}  // namespace postern::session
