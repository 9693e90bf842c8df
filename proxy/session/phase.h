// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "common/base/close_reason.h"
#include "common/base/failure.h"

namespace postern::session {

// Where a connection is in its life. Not every direction passes through every phase: kInboundPhases
// and kOutboundPhases say which moves are legal.
enum class Phase : uint8_t {
  kAccept,
  kOriginalDestination,
  kFirstBytes,     // the client has not spoken yet, and what it says decides what becomes of it
  kSniff,          // the first bytes are being judged
  kClassify,       // outbound: is the destination of the mesh?
  kAwaitIdentity,  // this proxy has no certificate yet
  kConnect,
  kHandshake,
  kIdentify,
  kAuthorize,
  kServerFirst,  // permissive inbound: whoever speaks first decides
  kRequest,      // outbound proxy port: the client says where it wants to go
  kReconnect,    // outbound: a handshake failed, another endpoint of the mesh is dialled
  kRelay,
  kLinger,  // an alert is on its way to a refused peer
  kClosed,
  kServerHeld,  // permissive inbound: the server has spoken, a ClientHello may be on its way
};
inline constexpr size_t kPhaseCount = static_cast<size_t>(Phase::kServerHeld) + 1;

std::string_view Token(Phase phase) noexcept;

// How long a phase may last. kInstant: it ends inside the call that began it.
enum class Deadline : uint8_t {
  kInstant,
  kSniff,       // config.sniff_timeout
  kLookup,      // config.lookup_timeout
  kConnect,     // config.connect_timeout
  kHandshake,   // config.handshake_timeout, counted from the first phase with this deadline
  kRequest,     // config.handshake_timeout
  kIdle,        // config.idle_timeout, counted from the last byte that moved; 0: none
  kLinger,      // kLingerTime
  kHelloGrace,  // kHelloGrace, counted from the accept
};

// One row of a direction's table. A phase that a direction does not have is absent.
struct PhaseRule {
  constexpr PhaseRule() = default;
  constexpr PhaseRule(Deadline limit, base::CloseReason late, std::initializer_list<Phase> moves)
      : known(true), deadline(limit), on_deadline(late) {
    for (Phase move : moves) {
      next |= Bit(move);
    }
  }
  static constexpr uint32_t Bit(Phase phase) { return 1U << static_cast<unsigned>(phase); }
  constexpr bool Allows(Phase phase) const { return (next & Bit(phase)) != 0; }

  bool known = false;
  Deadline deadline = Deadline::kInstant;
  base::CloseReason on_deadline = base::CloseReason::kInternal;
  uint32_t next = 0;
};

using PhaseTable = std::array<PhaseRule, kPhaseCount>;

// The legal moves and the deadline of each phase of a direction.
const PhaseTable& PhasesOf(base::Direction direction) noexcept;

}  // namespace postern::session
