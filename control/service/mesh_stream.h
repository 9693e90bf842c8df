// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "common/x509/chain_verifier.h"
#include "common/x509/revocation_set.h"
#include "control/mesh/mesh_state.h"
#include "control/service/caller.h"
#include "control/service/certify_service.h"
#include "postern/v1/mesh.pb.h"

namespace postern::service {

inline constexpr absl::Duration kHelloDeadline = absl::Seconds(10);
inline constexpr absl::Duration kKeepAlivePeriod = absl::Seconds(15);

// One proxy's stream. Lives from the handler's call to OnDone; everybody else holds it by
// shared_ptr for the length of a call or by weak_ptr. gRPC's threads, the service's thread and the
// mesh state's wake callbacks all come in; `mutex_` orders them.
class MeshStream final : public grpc::ServerBidiReactor<v1::MeshRequest, v1::MeshResponse>,
                         public std::enable_shared_from_this<MeshStream> {
 public:
  // Runs a task on a thread that may block.
  using Executor = std::function<void(std::function<void()>)>;

  MeshStream(const ServiceParts& parts, grpc::CallbackServerContext& context, Executor executor);

  // Begins to read. The stream keeps itself alive until OnDone.
  void Begin();

  // About once a second: keep-alives, and the end of a certificate or of patience.
  void Tick();

  // Ends the stream with this status, once what is being written has left.
  void End(const absl::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  enum class Phase : uint8_t { kHello, kConnecting, kOpen, kEnding, kEnded };

  absl::Status Handle(const v1::MeshRequest& request);
  absl::Status HandleHello(const v1::MeshRequest::Hello& hello);
  void Connect(const v1::MeshRequest::Hello& hello);  // on the executor
  // Takes `session` over and begins to serve it; false: the stream has ended meanwhile.
  bool Open(std::unique_ptr<mesh::Session>& session);
  absl::StatusOr<mesh::ProxyFacts> Authenticate();
  absl::StatusOr<mesh::ProxyFacts> AuthenticateUnixPeer();
  absl::Status ApplyHello(mesh::Session& session, const v1::MeshRequest::Hello& hello) const;
  void Pump();  // takes mutex_
  void PumpLocked();
  // Whether the proxy behind this stream is revoked; the stream then ends. Looks only when the
  // revocations have changed.
  bool EndIfRevokedLocked();
  absl::Status CheckNotRevoked(const x509::RevocationSet& revoked) const;
  void EndLocked(const absl::Status& status);
  v1::MeshResponse NewResponse() const;

  const ServiceParts parts_;
  grpc::CallbackServerContext& context_;  // gone after OnDone; the executor's tasks may come later
  const Executor executor_;
  const Caller caller_;
  const std::shared_ptr<const grpc::AuthContext> connection_;
  const absl::Duration begun_;
  std::shared_ptr<MeshStream> self_;

  std::mutex mutex_;
  Phase phase_ = Phase::kHello;
  bool writing_ = false;
  std::unique_ptr<mesh::Session> session_;
  absl::Time not_after_ = absl::InfiniteFuture();
  // Who it is: of the two, the one by which it was authenticated.
  std::optional<x509::VerifiedPeer> peer_;
  std::optional<x509::SpiffeId> unix_id_;
  std::shared_ptr<const x509::RevocationSet> judged_by_;
  absl::Duration written_at_;
  absl::Status end_status_;
  v1::MeshRequest request_;
  std::deque<v1::MeshResponse> queue_;  // at most one Take's worth
};

}  // namespace postern::service
