// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/tcp_flight.h"

// The kernel's own header: glibc's struct tcp_info ends before tcpi_notsent_bytes.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "proxy/net/errno_status.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongestRto{120'000};  // the kernel's TCP_RTO_MAX
constexpr int kMostDoublings = 20;            // far past any time that matters; bounds the shifts

milliseconds Doubled(milliseconds base, int times) {
  return std::min(base * (int64_t{1} << std::clamp(times, 0, kMostDoublings)), kLongestRto);
}

// Timeouts in a row, the current timer being doubled already.
milliseconds SinceFirstSent(const TcpFlight& flight) {
  const milliseconds first{flight.rto.count() >> std::min<int>(flight.backoff, kMostDoublings)};
  milliseconds sum = flight.last_data_sent;
  for (int i = 0; i < std::min<int>(flight.retransmits, kMostDoublings); ++i) {
    sum += Doubled(first, i);
  }
  return sum;
}

// The first unanswered probe may have left just now, its answer on the way: only the gaps between
// probes count. The timer of probes is not doubled in `rto` itself.
milliseconds SinceFirstProbe(const TcpFlight& flight) {
  milliseconds sum{0};
  for (int i = 1; i < std::min<int>(flight.probes, kMostDoublings); ++i) {
    sum += Doubled(flight.rto, flight.backoff - i);
  }
  return sum;
}

}  // namespace

absl::StatusOr<TcpFlight> ReadTcpFlight(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) {
    return absl::InternalError("TCP_INFO: " + ErrnoText(errno));
  }
  TcpFlight flight;
  flight.unacked = info.tcpi_unacked;
  flight.notsent_bytes = info.tcpi_notsent_bytes;
  flight.retransmits = info.tcpi_retransmits;
  flight.probes = info.tcpi_probes;
  flight.backoff = info.tcpi_backoff;
  flight.rto = milliseconds(info.tcpi_rto / 1000);  // microseconds
  flight.last_data_sent = milliseconds(info.tcpi_last_data_sent);
  flight.last_ack_received = milliseconds(info.tcpi_last_ack_recv);
  return flight;
}

milliseconds UnacknowledgedFor(const TcpFlight& flight) {
  if (flight.unacked > 0) {
    return std::min(flight.last_ack_received, SinceFirstSent(flight));
  }
  if (flight.notsent_bytes > 0 && flight.probes > 0) {
    return std::min(flight.last_ack_received, SinceFirstProbe(flight));
  }
  return milliseconds(0);
}

}  // namespace postern::net
