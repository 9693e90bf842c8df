// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/inbound_session.h"

#include <algorithm>
#include <utility>

#include "common/base/enum_index.h"
#include "common/base/strings.h"
#include "proxy/session/clock_notes.h"

namespace postern::session {

using base::CloseReason;
using base::Side;
using config::PeerMode;
using telemetry::PlaintextReason;

// ---------------------------------------------------------------- Accept

InboundSession::InboundSession(WorkerContext& worker, const ListenerSpec& via,
                               std::unique_ptr<net::Stream> accepted,
                               const net::SocketAddress& peer, SourceHold hold)
    : Session(worker, via, peer), hold_(std::move(hold)) {
  auto plain = std::make_unique<PlainTransport>(std::move(accepted));
  accepted_ = plain.get();
  downstream_ = std::move(plain);
}

void InboundSession::Start() {
  if (via().tunnel == nullptr) {
    StartOriginalDestination();
    return;
  }
  destination_ = via().target.value_or(net::SocketAddress());
  if (PrepareToAnnounce()) {
    StartSniff();
  }
}

// ---------------------------------------------------------------- OriginalDestination

void InboundSession::StartOriginalDestination() {
  Advance(Phase::kOriginalDestination);
  // What is handed over was accepted at the address that was dialled.
  const absl::StatusOr<net::SocketAddress> original =
      via().handed ? accepted_->stream().LocalAddress()
                   : worker().shared.original_destination(accepted_->stream(), via().transparent);
  if (!original.ok()) {
    Fail(CloseReason::kNoOriginalDestination, Side::kDownstream, original.status());
    return;
  }
  destination_ = *original;
  if (RefusesDestination(destination_) || !PrepareToAnnounce()) {
    return;
  }
  mode_ = ModeOf(destination_.port());
  switch (mode_) {
    case PeerMode::kStrict:
      if (IsExemptProbe()) {
        mode_ = PeerMode::kPermissive;  // for this client
        StartFirstBytes();
      } else {
        StartSniff();
      }
      return;
    case PeerMode::kPermissive:
      StartFirstBytes();
      return;
    case PeerMode::kDisabled:
      PassThrough(PlaintextReason::kDisabled, {});
      return;
    case PeerMode::kOpaque:
      PassThrough(PlaintextReason::kOpaque, {});
      return;
    case PeerMode::kSkip:
      PassThrough(PlaintextReason::kSkipped, {});
      return;
  }
}

bool InboundSession::RefusesDestination(const net::SocketAddress& destination) {
  if (worker().own.Contains(destination)) {
    Fail(CloseReason::kSelfLoop, Side::kDownstream,
         absl::InvalidArgumentError(base::StrCat(destination.ToString(), " is this proxy itself")));
    return true;
  }
  // Where the command of `postern run` has closed its own listener ours beside it still stands, and
  // gets what is meant for the command: from us at first, and then for ever.
  if (via().handed && via().target == destination) {
    Fail(CloseReason::kSelfLoop, Side::kDownstream,
         absl::UnavailableError(
             base::StrCat("the application does not listen at ", destination.ToString())));
    return true;
  }
  // No rule of ours redirects loopback destinations: somebody outside asks for what listens on this
  // host alone.
  if (destination.ip().IsLoopback() && !peer_address().ip().IsLoopback()) {
    Fail(CloseReason::kNoOriginalDestination, Side::kDownstream,
         absl::PermissionDeniedError(base::StrCat("loopback destination ", destination.ToString(),
                                                  " for a caller from outside")));
    return true;
  }
  return false;
}

PeerMode InboundSession::ModeOf(uint16_t port) const {
  if (worker().policy != nullptr) {
    const std::optional<PeerMode> by_policy = worker().policy->ModeOf(port);
    if (by_policy.has_value()) {
      return *by_policy;
    }
  }
  const auto found = worker().config().port_modes.find(port);
  return found != worker().config().port_modes.end() ? found->second : worker().config().peer_mode;
}

bool InboundSession::IsExemptProbe() const {
  return worker().policy != nullptr && !peer_address().is_unix() &&
         worker().policy->ProbeExemption(peer_address().ip(), destination_.port()) != nullptr;
}

// ---------------------------------------------------------------- Handshake

void InboundSession::Handshake(base::ByteSpan first_bytes) {
  if (worker().identity == nullptr) {
    if (first_bytes_.empty()) {
      KeepFirstBytes(first_bytes);
    }
    AwaitIdentity();
    return;
  }
  if (!IdentityIsUsable()) {
    return;
  }
  absl::StatusOr<std::unique_ptr<tls::TlsEngine>> engine = tls::TlsEngine::CreateServer(
      worker().identity->server(WantsClientCertificate() ? tls::ClientAuth::kRequire
                                                         : tls::ClientAuth::kNone),
      worker().tls_scratch, via().name);
  if (!engine.ok()) {
    Fail(CloseReason::kInternal, Side::kDownstream, engine.status());
    return;
  }
  const std::vector<uint8_t> kept = std::exchange(first_bytes_, {});
  std::unique_ptr<net::Stream> stream = std::exchange(accepted_, nullptr)->Release();
  StartHandshake(*std::move(engine), std::move(stream), kept.empty() ? first_bytes : kept);
}

void InboundSession::OnIdentity() {
  Handshake(first_bytes_);
}

bool InboundSession::WantsClientCertificate() const {
  return via().tunnel == nullptr || via().tunnel->client_auth;
}

// ---------------------------------------------------------------- Identify

void InboundSession::OnHandshakeDone() {
  if (WantsClientCertificate() && downstream_->peer() == nullptr) {
    Fail(CloseReason::kPeerNoCertificate, Side::kDownstream,
         absl::UnauthenticatedError("the handshake ended without a verified peer"),
         kAlertCertificateRequired);
    return;
  }
  Secure(WantsClientCertificate() ? telemetry::Security::kMutualTls
                                  : telemetry::Security::kTlsOnly);
  if (mode_ == PeerMode::kPermissive) {
    NoteSniffed();
    worker().shared.ports->Note(PortMemory::Fact::kMesh, destination_.port());
  }
  Authorize();
}

void InboundSession::PassThrough(PlaintextReason reason, base::ByteSpan first_bytes) {
  if (first_bytes_.empty()) {
    KeepFirstBytes(first_bytes);
  }
  passes_ =
      reason == PlaintextReason::kPermissive && IsExemptProbe() ? PlaintextReason::kProbe : reason;
  if (upstream_ != nullptr) {  // let in already, as a client that might wait for the server
    hold_.EndHandshake();
    // Policy may have changed while what it said was looked at, which Recheck leaves alone.
    if (FailIfLost()) {
      return;
    }
    CountPlaintext();
    Relay();
  } else {
    Authorize();
  }
}

// ---------------------------------------------------------------- Authorize

void InboundSession::Authorize() {
  Advance(Phase::kAuthorize);
  hold_.EndHandshake();
  if (auto stale = StaleTrust(worker().shared, Side::kDownstream);
      stale.has_value() && mode_ != PeerMode::kSkip) {
    Fail(*std::move(stale), passes_.has_value() ? -1 : kAlertAccessDenied);
    return;
  }
  std::optional<base::Failure> denied = Judge();
  if (denied.has_value()) {
    if (denied->reason != CloseReason::kPeerRevoked) {
      worker().metrics.denied[base::At(base::Direction::kInbound)].Add(1);
    }
    const int alert = passes_.has_value() ? -1 : AlertOf(*denied);
    Fail(*std::move(denied), alert);
    return;
  }
  if (RefusesPeer()) {
    return;
  }
  if (passes_.has_value() && passes_ != PlaintextReason::kServerFirst) {
    CountPlaintext();
  }
  ConnectApp();
}

// Whom policy lets in may still have too many connections. There is no alert that would say so; a
// reset is what a server that takes no more gives.
bool InboundSession::RefusesPeer() {
  if (downstream_->peer() == nullptr || worker().shared.limits == nullptr) {
    return false;
  }
  const auto refusal = worker().shared.limits->AdmitPeer(downstream_->peer()->id.uri(), hold_);
  if (refusal.has_value()) {
    Fail(refusal->reason, Side::kDownstream,
         absl::ResourceExhaustedError(base::ToAbsl(refusal->why)));
  }
  return refusal.has_value();
}

void InboundSession::CountPlaintext() {
  if (mode_ == PeerMode::kPermissive) {
    NoteSniffed();
  }
  if (worker().policy != nullptr) {
    NoteAudit(worker().policy->AuthorizeOn(ModeNow(), Facts()).audit);
  }
  PassPlaintext(*passes_);
}

// Of now, not of when the connection was accepted. What comes through a tunnel is judged by the
// tunnel's own rules and has no mode.
PeerMode InboundSession::ModeNow() const {
  return via().tunnel == nullptr ? ModeOf(destination_.port()) : PeerMode::kDisabled;
}

std::optional<base::Failure> InboundSession::Judge() {
  base::Failure failure;
  failure.side = Side::kDownstream;
  const PeerMode mode = ModeNow();
  const x509::VerifiedPeer* const peer = downstream_->peer();
  if (mode == PeerMode::kSkip && peer == nullptr) {
    policy_rule_ = "the port is skipped";
    return std::nullopt;
  }
  if (worker().policy == nullptr || worker().policy->is_deny_all()) {
    failure.reason = CloseReason::kNoPolicy;
    failure.detail = absl::PermissionDeniedError("no policy has come yet");
    return failure;
  }
  if (std::optional<base::Failure> distrusted = JudgePeer(peer)) {
    return distrusted;
  }
  failure.reason = CloseReason::kPolicyDenied;
  if (peer != nullptr && via().tunnel != nullptr) {
    const auto& patterns = via().tunnel->peers;
    if (std::none_of(patterns.begin(), patterns.end(),
                     [&](const x509::SpiffeIdPattern& p) { return p.Matches(peer->id); })) {
      policy_rule_ = "the tunnel's peers";
      failure.detail =
          absl::PermissionDeniedError(base::StrCat(peer->id.uri(), " is no peer of the tunnel"));
      return failure;
    }
  }
  const policy::Decision decision = worker().policy->AuthorizeOn(mode, Facts());
  policy_rule_ = decision.rule;
  if (decision.allowed) {
    if (!passes_.has_value() || phase() == Phase::kRelay) {
      NoteAudit(decision.audit);  // else not known yet that it is plaintext: see CountPlaintext
    }
    return std::nullopt;
  }
  failure.detail = absl::PermissionDeniedError(base::ToAbsl(decision.rule));
  return failure;
}

policy::ConnectionFacts InboundSession::Facts() const {
  policy::ConnectionFacts facts;
  if (const x509::VerifiedPeer* const peer = downstream_->peer(); peer != nullptr) {
    facts.source = peer->id;
  }
  if (!peer_address().is_unix()) {
    facts.source_ip = peer_address().ip();
  }
  facts.destination_port =
      via().tunnel != nullptr ? via().tunnel->target.port : destination_.port();
  facts.tunnel = via().tunnel != nullptr ? via().name : "";
  return facts;
}

// ---------------------------------------------------------------- ConnectApp

void InboundSession::ConnectApp() {
  if (upstream_ != nullptr && announce_ != nullptr && downstream_->peer() != nullptr) {
    // The application was told of a client without a name, and cannot be told twice.
    upstream_->Reset();
    upstream_.reset();
    announce_->sent = false;
  }
  if (upstream_ != nullptr) {  // dialled while the client was silent
    Relay();
    return;
  }
  if (via().tunnel != nullptr && !via().target.has_value()) {
    StartConnect(TargetOf(*via().tunnel));
  } else {
    StartConnect(via().target.value_or(destination_));
  }
}

void InboundSession::OnConnected(std::unique_ptr<net::Stream> stream) {
  upstream_ = std::make_unique<PlainTransport>(std::move(stream));
  if (passes_ == PlaintextReason::kServerFirst) {
    StartServerFirst();
  } else {
    Relay();
  }
}

// ---------------------------------------------------------------- Relay

void InboundSession::Relay() {
  const std::vector<uint8_t> first_bytes = std::exchange(first_bytes_, {});
  StartRelay(first_bytes, Announcement());
}

// ---------------------------------------------------------------- events of the phases

void InboundSession::OnDownstreamReadable() {
  switch (phase()) {
    case Phase::kFirstBytes:
    case Phase::kSniff:
    case Phase::kServerFirst:
    case Phase::kServerHeld:
      ReadFirstBytes();
      return;
    case Phase::kConnect:
      if (passes_ != PlaintextReason::kServerFirst) {
        TakeEarlyBytes();
        return;
      }
      break;
    default:
      break;
  }
  LookAtWatchedDownstream();
}

void InboundSession::OnUpstreamReadable() {
  upstream_->WantRead(false);
  if (phase() == Phase::kServerFirst) {
    OnServerSpoke();
  }
}

}  // namespace postern::session
