// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "control/attest/unix_peer.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace postern::service {

// The unix socket of a gRPC server. It accepts by itself and asks the kernel for the peer's
// credentials before gRPC gets the connection, because gRPC 1.51 shows a handler nothing but
// "fd:N" of a unix client. Owned by main; one thread of its own; stopped before the server is.
class UnixListener {
 public:
  // Everybody may connect (0666): attestation and each verb judge by the peer's credentials. A
  // stale socket file is replaced. FailedPrecondition: another process listens there. Unavailable:
  // names path and system error.
  static absl::StatusOr<std::unique_ptr<UnixListener>> Listen(const std::string& path);
  ~UnixListener();  // Stop, and the file is removed if it is still its own
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;

  // Begins to hand connections to `server`, which outlives the listener.
  void Serve(grpc::Server& server);

  // Accepts no more; Serve's server may end afterwards. Idempotent.
  void Stop();

  // Who is behind a handler's ServerContext::peer(); null when it is no connection of this socket.
  // Any thread.
  std::shared_ptr<const attest::UnixPeer> PeerOf(std::string_view grpc_peer) const;

 private:
  struct Impl;
  explicit UnixListener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::service
