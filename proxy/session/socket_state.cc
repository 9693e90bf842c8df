// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/socket_state.h"

#include <sys/socket.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace postern::session {

base::Failure SocketFailure(const net::IoResult& io, const char* what) {
  base::Failure failure;
  // A timed-out keepalive and an unreachable host are the network's way of saying that the peer
  // died.
  const bool dead = io.error == ETIMEDOUT || io.error == EHOSTUNREACH || io.error == ENETUNREACH;
  failure.reason = dead ? base::CloseReason::kPeerDead : base::CloseReason::kReset;
  failure.detail =
      absl::UnavailableError(absl::StrCat(what, ": ", std::generic_category().message(io.error)));
  return failure;
}

bool PeerHasReset(const net::Stream& stream) {
  char byte = 0;
  const ssize_t n = recv(stream.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
}

bool HasInput(const net::Stream& stream) {
  char byte = 0;
  return recv(stream.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

std::chrono::milliseconds Unacknowledged(const net::Stream& stream) {
  const absl::StatusOr<std::chrono::milliseconds> waited = stream.Unacknowledged();
  return waited.ok() ? *waited : std::chrono::milliseconds(0);
}

}  // namespace postern::session
