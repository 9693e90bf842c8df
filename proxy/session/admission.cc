// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/admission.h"

#include <algorithm>

#include "proxy/session/session_table.h"

namespace postern::session {

SourceLimits::Room InboundRoom(const WorkerContext& worker, size_t without) {
  const size_t handshakes = worker.table.handshakes(base::Direction::kInbound) - without;
  return {.handshakes = worker.handshake_limit - std::min(handshakes, worker.handshake_limit),
          .connections =
              worker.connection_limit - std::min(worker.table.size(), worker.connection_limit),
          .workers = std::max(worker.config().workers, 1U)};
}

std::optional<SourceLimits::Refusal> AdmitLateHandshake(const WorkerContext& worker,
                                                        SourceHold& hold) {
  const SourceLimits::Room room = InboundRoom(worker, 1);
  if (room.handshakes == 0) {
    return SourceLimits::Refusal{base::CloseReason::kOverload,
                                 "a silent client began a handshake beyond --max-handshakes"};
  }
  SourceLimits* const limits = worker.shared.limits.get();
  return limits != nullptr ? limits->AdmitHandshake(room, hold) : std::nullopt;
}

}  // namespace postern::session
