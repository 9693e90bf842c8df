// SPDX-License-Identifier: Apache-2.0
// What InboundSession tells an application of its client, where the application asks for that: a
// PROXY protocol header before the first byte.
#include <string>
#include <utility>

#include "proxy/session/inbound_session.h"
#include "proxy/session/proxy_protocol.h"
#include "proxy/tls/tls_context.h"

namespace postern::session {

using base::CloseReason;
using base::Side;

// While the socket is at hand: a tunnel's client has connected to the socket's own address, an
// intercepted one to the original destination. False: the session has failed.
bool InboundSession::PrepareToAnnounce() {
  if (via().tunnel == nullptr) {
    if (worker().config().proxy_protocol_ports.contains(destination_.port())) {
      announce_ = std::make_unique<Announce>(Announce{destination_});
    }
    return true;
  }
  if (!via().tunnel->proxy_protocol) {
    return true;
  }
  absl::StatusOr<net::SocketAddress> local = accepted_->stream().LocalAddress();
  if (!local.ok()) {
    Fail(CloseReason::kReset, Side::kDownstream, local.status());
    return false;
  }
  announce_ = std::make_unique<Announce>(Announce{*std::move(local)});
  return true;
}

// A server that is to speak first waits for the header before it does. False: the session has
// failed.
bool InboundSession::AnnounceToSilent() {
  const std::vector<uint8_t> header = Announcement();
  if (header.empty()) {
    return true;
  }
  const TransportResult written = upstream_->Write(header);
  if (written.outcome == TransportOutcome::kFailed) {
    FailBy(*upstream_, Side::kUpstream);
    return false;
  }
  if (written.bytes < header.size()) {  // no kernel gives a new socket so little room
    Fail(CloseReason::kConnectFailed, Side::kUpstream,
         absl::ResourceExhaustedError("the application's socket took no PROXY header"));
    return false;
  }
  return true;
}

// The header, once; empty where the application does not ask for it.
std::vector<uint8_t> InboundSession::Announcement() {
  if (announce_ == nullptr || announce_->sent) {
    return {};
  }
  announce_->sent = true;
  ProxyHeader header;
  header.endpoints = {peer_address(), announce_->destination};
  if (security() == telemetry::Security::kMutualTls ||
      security() == telemetry::Security::kTlsOnly) {
    tls::TlsFacts facts = downstream_->facts();
    ClientTls& tls = header.tls.emplace();
    tls.version = std::move(facts.version);
    tls.cipher = std::move(facts.cipher);
    tls.group = std::move(facts.group);
    // The mesh's own mark says nothing of what the application speaks.
    tls.alpn = facts.alpn == tls::kMeshAlpn ? "" : std::move(facts.alpn);
    tls.authority = sni_;
    tls.spiffe_id = downstream_->peer() != nullptr ? downstream_->peer()->id.uri() : "";
    tls.resumed = facts.resumed;
  }
  return header.Encode();
}

}  // namespace postern::session
