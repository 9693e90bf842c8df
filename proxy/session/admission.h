// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>

#include "proxy/session/source_limits.h"
#include "proxy/session/worker_context.h"

namespace postern::session {

// What the worker still has places for, as if it had so many handshakes less than it has. Its
// thread.
SourceLimits::Room InboundRoom(const WorkerContext& worker, size_t without = 0);

// Whether an inbound connection that was let in without a handshake, and begins one after all, may:
// no backlog can hold it back any more, so what is beyond the worker's places is refused, as is
// what is beyond its source's. It stands among the worker's handshakes already. Worker's thread.
std::optional<SourceLimits::Refusal> AdmitLateHandshake(const WorkerContext& worker,
                                                        SourceHold& hold);

}  // namespace postern::session
