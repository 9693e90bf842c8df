// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "control/service/connection_ledger.h"
#include "control/service/issuer_config.h"

namespace grpc::experimental {
class ExternalConnectionAcceptor;
}  // namespace grpc::experimental

namespace postern::service {

// Counted by the listener's thread, read by any.
struct ListenerCounters {
  std::atomic<uint64_t> open{0};
  std::atomic<uint64_t> refused_total_limit{0};
  std::atomic<uint64_t> refused_source_limit{0};
};

// The issuer's TCP port. gRPC 1.51 takes any number of connections, so this accepts instead of it,
// refuses with a reset those beyond the limits, and hands the others over; TLS is gRPC's. A thread
// of its own. Owned by the issuer's process; stopped before the server that it hands over to.
class TcpListener {
 public:
  // Binds and listens; port 0 picks one. The limits are cut to what RLIMIT_NOFILE leaves beside the
  // store, the log and the other ports. Unavailable: the system's error, naming the address.
  // `clock` outlives the listener.
  static absl::StatusOr<std::unique_ptr<TcpListener>> Listen(const ListenAddress& address,
                                                             ConnectionLimits limits,
                                                             const base::Clock& clock);
  ~TcpListener();
  TcpListener(const TcpListener&) = delete;
  TcpListener& operator=(const TcpListener&) = delete;

  // Accepts from now on. The acceptor's server has been started and outlives Stop.
  void Serve(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor);
  void Stop();

  uint16_t port() const;
  const ListenerCounters& counters() const;

 private:
  struct Impl;
  explicit TcpListener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::service
