// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/x509/spiffe_id.h"
#include "proxy/config/destinations.h"
#include "proxy/identity/endpoint_directory.h"
#include "proxy/request/destination.h"
#include "proxy/session/handed_over.h"
#include "proxy/session/outbound_request.h"
#include "proxy/session/session.h"

namespace postern::session {

// A connection of this workload's application to somewhere:
//   Accept -> OriginalDestination or Request -> Classify -> Connect -> Handshake -> Identify ->
//   Authorize -> Relay -> Close -> Record
// The steps of a request are in outbound_request.cc. A tunnel knows its destination and whom to
// expect there from the config. What is not of the mesh goes from Connect to Relay. The
// application's first bytes are looked at before the connection is made only where its own TLS is
// to be passed on.
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
  void RefuseLookup(const absl::Status& why);
  bool RefuseSelf();
  void NotInMesh();
  std::optional<base::Failure> RefusesPlaintext() const;
  // `asked`: what its endpoints stand for where they do not say another place.
  void InMesh(const config::MeshDestination& destination, const Place& asked);
  void WrapOrPass();
  void StartFirstBytes();
  void OnFirstBytesKnown();
  void NeedIdentity();
  void Connect();
  void OnConnected(std::unique_ptr<net::Stream> stream) override;
  void Handshake(std::unique_ptr<net::Stream> stream);
  void OnHandshakeDone() override;
  void Authorize();

  // The same for a client that asks.
  void StartRequest();
  void ReadRequest();
  void OnRequest();
  void ClassifyName(const request::Destination& asked);
  void OnNameFound(absl::StatusOr<std::vector<Candidate>> found);
  void ClassifyAddresses();
  void OnAddressLookup(const identity::EndpointDirectory::Answer& answer);
  void ChooseAddresses();
  void NoneInMesh();
  static bool AddEndpointsOf(const Candidate& candidate, std::vector<Candidate>& to);
  bool Say(std::string_view text);  // false: the session has failed
  bool Grant();                     // likewise

  void OnDownstreamReadable() override;
  void OnDeadline() override;
  void OnUpstreamReadable() override {}
  void OnIdentity() override { NeedIdentity(); }
  bool JudgeFirstBytes(base::ByteSpan bytes) override;
  void BeforeRecord(const base::Failure& end) override;
  std::optional<base::Failure> Judge() override;
  void OnCandidate(const Candidate& candidate) override;
  bool TellDownstream(const base::Failure& failure) override;
  bool IsOwnWorkload(const net::SocketAddress& address) const override;
  bool IsPastOwnProxy(const net::Stream& connected) const;
  std::string AskedFor() const override;

  // kUnseen: passed as it is; whether it is the application's own TLS shows in its first bytes.
  enum class Carries : uint8_t { kMeshTls, kUnseen, kPlain };

  net::SocketAddress dial_;                      // the one place to dial
  std::vector<Place> places_;                    // where there is a choice, or a name
  std::vector<x509::SpiffeIdPattern> expected_;  // who may answer there
  std::shared_ptr<const x509::PeerPins> pins_;   // what the server must have beyond the bundle
  std::unique_ptr<identity::EndpointDirectory::Query> query_;
  std::unique_ptr<OutboundRequest> request_;  // of an outbound proxy port's client
  std::unique_ptr<PlaceFinder> name_finder_;
  Carries carries_ = Carries::kMeshTls;
  config::EndpointsAre endpoints_are_ = config::EndpointsAre::kForMtls;
  ConnectOutcome outcome_;  // of a connection that is handed over
};

static_assert(sizeof(OutboundSession) <= 880);

}  // namespace postern::session
