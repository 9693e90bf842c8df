// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

#include "absl/status/statusor.h"

namespace postern::net {

// What the kernel tells of a TCP connection's unacknowledged bytes (struct tcp_info). A value.
struct TcpFlight {
  uint32_t unacked = 0;              // segments sent and not acknowledged
  uint32_t notsent_bytes = 0;        // held back: the peer's window is zero, or congestion
  uint8_t retransmits = 0;           // retransmission timeouts in a row without an acknowledgement
  uint8_t probes = 0;                // window probes in a row without an answer
  uint8_t backoff = 0;               // how often the timer was doubled
  std::chrono::milliseconds rto{0};  // the retransmission timer, doubled already
  std::chrono::milliseconds last_data_sent{0};  // age of the last segment with data
  std::chrono::milliseconds last_ack_received{0};
};

// Reads TCP_INFO of a connected TCP socket. Internal when the kernel refuses.
absl::StatusOr<TcpFlight> ReadTcpFlight(int fd);

// How long the peer has left the oldest byte in flight without an answer; zero when nothing is in
// flight. Never more than the time since the last acknowledgement of any kind, so that a peer which
// answers window probes, or reads slowly, is alive. Pure.
//
// The kernel keeps no such age. It follows from the timer: each timeout without an answer doubles
// it, so that n of them are rto0 * (2^n - 1) after the first sending (RFC 6298 section 5.5).
std::chrono::milliseconds UnacknowledgedFor(const TcpFlight& flight);

}  // namespace postern::net
