// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/base/failure.h"
#include "common/base/unique_fd.h"
#include "proxy/net/socket_address.h"

namespace postern::session {

// A connection that `postern run` has taken from its command: the accepted end, where the command
// asked to be connected, and who waits for the outcome (none: nobody). A value.
struct HandedConnection {
  base::UniqueFd connection;
  net::SocketAddress destination;
  base::UniqueFd outcome;
};

// The command's connect waits in its system call until this is told how it went. Told once; what
// was never told reads as a refusal when this goes. Worker's thread.
class ConnectOutcome {
 public:
  ConnectOutcome() = default;
  explicit ConnectOutcome(base::UniqueFd pipe) : pipe_(std::move(pipe)) {}

  void Connected();
  // As the errno that comes nearest to what happened (ErrnoFor).
  void Failed(const base::Failure& failure);

 private:
  base::UniqueFd pipe_;
};

// The system's own where a next hop could not be reached, ETIMEDOUT for what came too late, EACCES
// for what was refused: by policy, or because nobody there is who is expected.
int ErrnoFor(const base::Failure& failure);

}  // namespace postern::session
