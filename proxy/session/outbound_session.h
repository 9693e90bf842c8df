// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "common/x509/spiffe_id.h"
#include "proxy/config/destinations.h"
#include "proxy/identity/endpoint_directory.h"
#include "proxy/session/handed_over.h"
#include "proxy/session/session.h"

namespace postern::session {

// A connection of this workload's application to somewhere:
//   Accept -> OriginalDestination -> Classify -> Connect -> Handshake -> Identify -> Authorize ->
//   Relay -> Close -> Record
// A tunnel knows its destination and whom to expect there from the config. What is not of the mesh
// goes from Connect to Relay. The application's bytes are read only once they can be passed on.
class OutboundSession final : public Session {
 public:
  OutboundSession(WorkerContext& worker, const ListenerSpec& via,
                  std::unique_ptr<net::Stream> accepted, const net::SocketAddress& peer);

  // Before Start, for a connection that is handed over.
  void GoTo(const net::SocketAddress& destination, ConnectOutcome outcome);

  void Start() override;

 private:
  // The steps, in order.
  void StartOriginalDestination();
  void Classify();
  void OnLookup(const identity::EndpointDirectory::Answer& answer);
  void NotInMesh();
  void InMesh(const config::MeshDestination& destination);
  void NeedIdentity();
  void Connect();
  void OnConnected(std::unique_ptr<net::Stream> stream) override;
  void Handshake(std::unique_ptr<net::Stream> stream);
  void OnHandshakeDone() override;
  void Authorize();

  void OnDownstreamReadable() override { TakeEarlyBytes(); }
  void OnUpstreamReadable() override {}
  void OnIdentity() override { NeedIdentity(); }
  bool JudgeFirstBytes(base::ByteSpan bytes) override;
  void BeforeRecord(const base::Failure& end) override;
  std::optional<base::Failure> Judge() override;

  // kUnseen: passed as it is; whether it is the application's own TLS shows in its first bytes.
  enum class Carries : uint8_t { kMeshTls, kUnseen, kPlain };

  net::SocketAddress dial_;                      // instead of the destination (connectTo)
  std::vector<x509::SpiffeIdPattern> expected_;  // who may answer there
  std::shared_ptr<const x509::PeerPins> pins_;   // what the server must have beyond the bundle
  std::unique_ptr<identity::EndpointDirectory::Query> query_;
  Carries carries_ = Carries::kMeshTls;
  ConnectOutcome outcome_;  // of a connection that is handed over
};

static_assert(sizeof(OutboundSession) <= 872);

}  // namespace postern::session
