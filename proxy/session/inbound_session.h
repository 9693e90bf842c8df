// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "proxy/config/proxy_config.h"
#include "proxy/session/plain_transport.h"
#include "proxy/session/session.h"
#include "proxy/session/source_limits.h"
#include "proxy/tls/client_hello.h"

namespace postern::session {

// A connection from the mesh to this workload:
//   Accept -> OriginalDestination -> Sniff -> Handshake -> Identify -> Authorize -> ConnectApp ->
//   Relay -> Close -> Record
// A tunnel knows its destination from the config. A permissive port waits for the first bytes
// before it sniffs, and lets what is not of the mesh go from Sniff to Authorize. Who speaks first
// there, and what they say, is found out in inbound_sniff.cc.
class InboundSession final : public Session {
 public:
  InboundSession(WorkerContext& worker, const ListenerSpec& via,
                 std::unique_ptr<net::Stream> accepted, const net::SocketAddress& peer,
                 SourceHold hold);

  void Start() override;

 private:
  // The steps, in order.
  void StartOriginalDestination();
  void StartFirstBytes();
  void OnSilence();
  void StartSniff();
  void ReadFirstBytes();
  void Sniff(base::ByteSpan bytes);
  bool CountsAsHandshake();
  void OnNoHello();
  void EndedBeforeFirstByte();
  void OnClientHello(const tls::ClientHello& hello, base::ByteSpan bytes);
  void Handshake(base::ByteSpan first_bytes);
  void OnHandshakeDone() override;
  void PassThrough(telemetry::PlaintextReason reason, base::ByteSpan first_bytes);
  void Authorize();
  bool RefusesPeer();
  void ConnectApp();
  void OnConnected(std::unique_ptr<net::Stream> stream) override;
  void StartServerFirst();
  void OnServerSpoke();
  void LetServerSpeak();
  void Relay();

  bool PrepareToAnnounce();
  bool AnnounceToSilent();
  std::vector<uint8_t> Announcement();

  void OnDownstreamReadable() override;
  void OnUpstreamReadable() override;
  void OnIdentity() override;
  void OnDeadline() override;
  bool JudgeFirstBytes(base::ByteSpan bytes) override;
  std::optional<base::Failure> Judge() override;

  config::PeerMode ModeOf(uint16_t port) const;
  config::PeerMode ModeNow() const;
  bool IsExemptProbe() const;
  bool IsMember() const;
  bool MayPassPlaintext() const;
  bool MayBeLateMember() const;
  policy::ConnectionFacts Facts() const;
  void CountPlaintext();
  void NoteSniffed();
  bool RefusesDestination(const net::SocketAddress& destination);
  void KeepFirstBytes(base::ByteSpan bytes);
  bool WantsClientCertificate() const;

  PlainTransport* accepted_ = nullptr;  // the downstream until TLS takes its socket over
  std::vector<uint8_t> first_bytes_;    // read by the sniffer, not consumed yet
  std::optional<telemetry::PlaintextReason> passes_;  // why the connection is not TLS of ours
  config::PeerMode mode_ = config::PeerMode::kStrict;
  bool late_ = false;  // let in silent, it is shaking hands after all
  // What the application, which asks for it, is told of the client: to what it has connected, and
  // whether it was told already. Null: it does not ask.
  struct Announce {
    net::SocketAddress destination;
    bool sent = false;
  };
  std::unique_ptr<Announce> announce_;
  SourceHold hold_;  // what the connection counts for
};

// Growing a session costs memory for every open connection: a deliberate change.
static_assert(sizeof(InboundSession) <= 832);

}  // namespace postern::session
