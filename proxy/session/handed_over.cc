// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/handed_over.h"

#include <cerrno>

#include "common/handover/handover.h"
#include "proxy/net/errno_status.h"

namespace postern::session {

using base::CloseReason;

int ErrnoFor(const base::Failure& failure) {
  switch (failure.reason) {
    case CloseReason::kConnectFailed: {
      const int error = net::ErrnoOf(failure.detail);
      return error != 0 ? error : EHOSTUNREACH;  // a name that cannot be resolved, say
    }
    case CloseReason::kConnectTimeout:
    case CloseReason::kLookupTimeout:
    case CloseReason::kHandshakeTimeout:
      return ETIMEDOUT;
    case CloseReason::kReset:
    case CloseReason::kTruncated:
    case CloseReason::kHandshakeFailed:
    case CloseReason::kDrainDeadline:
    case CloseReason::kOverload:
    case CloseReason::kInternal:
      return ECONNREFUSED;
    default:
      return EACCES;
  }
}

void ConnectOutcome::Connected() {
  if (pipe_.is_open()) {
    handover::WriteOutcome(pipe_.get(), 0);
    pipe_.Reset();
  }
}

void ConnectOutcome::Failed(const base::Failure& failure) {
  if (pipe_.is_open()) {
    handover::WriteOutcome(pipe_.get(), ErrnoFor(failure));
    pipe_.Reset();
  }
}

}  // namespace postern::session
