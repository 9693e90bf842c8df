// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/session.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "common/base/enum_index.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "proxy/intercept/rules.h"
#include "proxy/net/transparent.h"
#include "proxy/session/clock_notes.h"
#include "proxy/session/plain_transport.h"
#include "proxy/session/session_table.h"
#include "proxy/session/tls_transport.h"

namespace postern::session {
namespace {

using base::At;
using base::CloseReason;
using base::Side;
using std::chrono::milliseconds;

// Of what the downstream says before the relay; most requests are shorter.
constexpr size_t kMaxEarly = 4U << 10U;

// From the accept to the end of the handshake: what the cap on handshakes counts.
constexpr bool IsHandshaking(Phase phase) {
  return phase == Phase::kSniff || phase == Phase::kAwaitIdentity || phase == Phase::kHandshake;
}

}  // namespace

Session::Session(WorkerContext& worker, const ListenerSpec& via, const net::SocketAddress& peer)
    : worker_(worker),
      via_(via),
      id_(worker.table.NextId()),
      peer_address_(peer),
      opened_(worker.shared.clock->Now()),
      began_(std::chrono::steady_clock::now()),
      timer_(worker.loop, [this] { OnTimer(); }) {
  worker_.metrics.opened[At(via.direction)].Add(1);
}

Session::~Session() = default;

base::Side Session::mesh_side() const {
  return via_.direction == base::Direction::kInbound ? Side::kDownstream : Side::kUpstream;
}

Transport* Session::mesh_transport() const {
  return mesh_side() == Side::kDownstream ? downstream_.get() : upstream_.get();
}

// ---------------------------------------------------------------- phases and their deadlines

void Session::Advance(Phase next) {
  const PhaseTable& table = PhasesOf(via_.direction);
  if (!table[At(phase_)].Allows(next)) {
    spdlog::critical("connection {}: no move from {} to {}", id_, Token(phase_), Token(next));
    std::abort();  // a fault of the program, never of a peer
  }
  SPDLOG_TRACE("connection {}: {}", id_, Token(next));
  const bool was_handshaking = IsHandshaking(phase_);
  phase_ = next;
  ArmDeadline(table[At(next)].deadline);
  if (!was_handshaking && IsHandshaking(next)) {
    worker_.table.HandshakeBegan(via_.direction);
  } else if (was_handshaking && !IsHandshaking(next)) {
    worker_.table.HandshakeEnded(via_.direction);
  }
}

void Session::ArmDeadline(Deadline deadline) {
  const config::ProxyConfig& config = worker_.config();
  switch (deadline) {
    case Deadline::kInstant:
      timer_.Stop();
      return;
    case Deadline::kSniff:
      timer_.Start(config.sniff_timeout);
      return;
    case Deadline::kLookup:
      timer_.Start(config.lookup_timeout);
      return;
    case Deadline::kConnect:
      handshake_until_ = milliseconds(0);  // a handshake after it counts anew
      timer_.Start(Share(config.connect_timeout));
      return;
    case Deadline::kRequest:
      timer_.Start(config.handshake_timeout);
      return;
    case Deadline::kHandshake:
      if (handshake_until_.count() == 0) {
        handshake_until_ = worker_.loop.Now() + config.handshake_timeout;
      }
      timer_.Start(Share(std::max(handshake_until_ - worker_.loop.Now(), milliseconds(0))));
      return;
    case Deadline::kIdle:
      if (config.idle_timeout.count() > 0) {
        timer_.Start(config.idle_timeout);
      } else {
        timer_.Stop();
      }
      return;
    case Deadline::kLinger:
      timer_.Start(kLingerTime);
      return;
    case Deadline::kHelloGrace: {
      const auto passed =
          std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - began_);
      timer_.Start(std::max(kHelloGrace - passed, milliseconds(0)));
      return;
    }
  }
}

void Session::OnTimer() {
  if (phase_ == Phase::kLinger) {
    Close();
  } else if (phase_ != Phase::kClosed && !IdleTimeLeft()) {
    OnDeadline();
  }
}

// The idle timer is not armed again for each byte: when it goes off, it looks when the last one
// was.
bool Session::IdleTimeLeft() {
  if (phase_ != Phase::kRelay) {
    return false;
  }
  const milliseconds left =
      relay_->last_activity() + worker_.config().idle_timeout - worker_.loop.Now();
  if (left.count() <= 0) {
    return false;
  }
  timer_.Start(left);
  return true;
}

void Session::OnDeadline() {
  const CloseReason reason = PhasesOf(via_.direction)[At(phase_)].on_deadline;
  const bool upstream =
      phase_ == Phase::kConnect || phase_ == Phase::kReconnect || phase_ == Phase::kClassify;
  const Side side = upstream                      ? Side::kUpstream
                    : phase_ == Phase::kHandshake ? mesh_side()
                                                  : Side::kDownstream;
  FailOver(
      FailureOf(reason, side,
                absl::DeadlineExceededError(base::StrCat("deadline of phase ", Token(phase_)))));
}

// ---------------------------------------------------------------- identity and handshake

void Session::AwaitIdentity() {
  Advance(Phase::kAwaitIdentity);
  WatchDownstream();
}

void Session::IdentityPublished() {
  if (phase_ == Phase::kAwaitIdentity) {
    OnIdentity();
  }
}

bool Session::IdentityIsUsable() {
  const absl::Status usable = worker_.identity->svid().CheckUsable(worker_.shared.clock->Now());
  if (!usable.ok()) {
    Fail(CloseReason::kNoIdentity, mesh_side(), usable);
  }
  return usable.ok();
}

void Session::StartHandshake(std::unique_ptr<tls::TlsEngine> engine,
                             std::unique_ptr<net::Stream> stream, base::ByteSpan first_bytes) {
  auto transport =
      std::make_unique<TlsTransport>(std::move(stream), std::move(engine), worker_.tls_scratch);
  TlsTransport& tls = *transport;
  tls.SetHandler(this);
  (mesh_side() == Side::kDownstream ? downstream_ : upstream_) = std::move(transport);
  Advance(Phase::kHandshake);
  handshake_began_ = std::chrono::steady_clock::now();
  HandshakeStep(tls.HandshakeWith(first_bytes));
}

void Session::HandshakeStep(const TransportResult& result) {
  Transport& mesh = *mesh_transport();
  switch (result.outcome) {
    case TransportOutcome::kWouldBlock:
      mesh.WantRead(true);
      return;
    case TransportOutcome::kEnd:
      FailOver(
          FailureOf(CloseReason::kHandshakeFailed, mesh_side(),
                    absl::DataLossError("the peer closed its connection during the handshake")));
      return;
    case TransportOutcome::kFailed:
      FailOver(FailureOf(mesh, mesh_side()));
      return;
    case TransportOutcome::kDone:
      break;
  }
  mesh.WantRead(false);
  CountHandshake(mesh.ticket_use());
  Advance(Phase::kIdentify);
  OnHandshakeDone();
}

void Session::Secure(telemetry::Security security) {
  security_ = security;
  worker_.metrics.secured[At(via_.direction)][At(security)].Add(1);
}

void Session::PassPlaintext(telemetry::PlaintextReason reason) {
  worker_.metrics.plaintext[At(reason)].Add(1);
  Secure(reason == telemetry::PlaintextReason::kApplicationTls
             ? telemetry::Security::kApplicationTls
             : telemetry::Security::kPlaintext);
}

// ---------------------------------------------------------------- connecting

void Session::StartConnect(const net::SocketAddress& address) {
  Advance(Phase::kConnect);
  if (!Dial(address)) {
    WatchDownstream();
  }
}

// True: it is connected already, and the session has gone on.
bool Session::Dial(const net::SocketAddress& address) {
  upstream_address_ = address;
  std::unique_ptr<net::Stream> stream = NewDialer().Dial(address);
  if (stream == nullptr) {
    return false;
  }
  OnDialled(std::move(stream));
  return true;
}

Dialer& Session::NewDialer() {
  net::ConnectOptions options;
  options.mark = worker_.config().mark;
  // The application that an inbound connection is for stands on this host.
  options.near = via_.direction == base::Direction::kInbound;
  options.priority = IsOwnWorkload(upstream_address_) ? intercept::kOwnWorkloadPriority : 0;
  if (via_.transparent && net::CanStandForClient(peer_address_.ip())) {
    options.client = &peer_address_.ip();
  }
  return dialer_.emplace(worker_.loop, options,
                         [this](absl::StatusOr<std::unique_ptr<net::Stream>> stream) {
                           OnDialled(std::move(stream));
                         });
}

void Session::OnDialled(absl::StatusOr<std::unique_ptr<net::Stream>> stream) {
  dialer_.reset();
  if (phase_ != Phase::kConnect && phase_ != Phase::kReconnect) {
    return;
  }
  if (!stream.ok()) {
    FailOver(FailureOf(absl::IsResourceExhausted(stream.status()) ? CloseReason::kOverload
                                                                  : CloseReason::kConnectFailed,
                       Side::kUpstream, stream.status()));
    return;
  }
  finder_.reset();
  OnConnected(*std::move(stream));
}

void Session::WatchDownstream() {
  downstream_->SetHandler(this);
  downstream_->WantRead(true);
}

void Session::WatchUpstream() {
  upstream_->SetHandler(this);
  upstream_->WantRead(true);
}

void Session::LookAtWatchedDownstream() {
  if (downstream_->PeerHasReset()) {
    Fail(CloseReason::kReset, Side::kDownstream,
         absl::UnavailableError("the downstream went away before there was a connection"));
    return;
  }
  downstream_->WantRead(false);  // bytes or an end: the relay reads them
}

// Costs no more than to read them later; to leave them there costs several changes of what is
// polled for. What comes behind them waits for the relay.
void Session::TakeEarlyBytes() {
  if (!early_.empty()) {
    LookAtWatchedDownstream();
    return;
  }
  const base::MutableByteSpan room = worker_.relay_scratch.first(kMaxEarly);
  const TransportResult read = downstream_->Read(room);
  switch (read.outcome) {
    case TransportOutcome::kDone:
      early_.assign(room.begin(), room.begin() + static_cast<ptrdiff_t>(read.bytes));
      return;
    case TransportOutcome::kWouldBlock:
      return;
    case TransportOutcome::kEnd:
      downstream_->WantRead(false);  // the relay sees it again
      return;
    case TransportOutcome::kFailed:
      FailBy(*downstream_, Side::kDownstream);
      return;
  }
}

// ---------------------------------------------------------------- relaying

void Session::StartRelay(base::ByteSpan first_bytes, base::ByteSpan preface) {
  Advance(Phase::kRelay);
  if (route_ != nullptr) {
    route_->Succeeded();
  }
  const config::ProxyConfig& config = worker_.config();
  Relay::Options options;
  options.high_watermark = config.high_watermark;
  options.low_watermark = config.low_watermark;
  options.scratch = worker_.relay_scratch;
  for (const Side side : {Side::kDownstream, Side::kUpstream}) {
    options.counters[At(side)] = &worker_.metrics.bytes[At(via_.direction)][At(side)];
  }
  Relay::Owner& owner = *this;
  relay_.emplace(worker_.loop, *downstream_, *upstream_, owner, options);
  WatchPeer();
  early_.insert(early_.begin(), first_bytes.begin(), first_bytes.end());
  early_.insert(early_.begin(), preface.begin(), preface.end());
  const std::vector<uint8_t> first = std::exchange(early_, {});
  relay_->Start(first, preface.size());
}

bool Session::OnFirstBytes(base::ByteSpan bytes) noexcept {
  return JudgeFirstBytes(bytes);
}

void Session::OnRelayDone() noexcept {
  Finish();
}

void Session::OnRelayFailed(const base::Failure& failure) noexcept {
  Fail(failure);
}

void Session::OnTransportReadable(Transport& transport) noexcept {
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (phase_ == Phase::kLinger) {
    DiscardFromRefused(transport);
  } else if (phase_ == Phase::kHandshake && &transport == mesh_transport()) {
    HandshakeStep(transport.Handshake());
  } else if (&transport == downstream_.get()) {
    OnDownstreamReadable();
  } else {
    OnUpstreamReadable();
  }
}

// A handshake's flight that was cut short has left; the peer's answer drives what follows.
void Session::OnTransportWritable(Transport& /*transport*/) noexcept {}

// ---------------------------------------------------------------- the worker's news

void Session::CheckLiveness() {
  if (phase_ == Phase::kRelay) {
    relay_->CheckLiveness(kPeerDeadAfter);
  }
}

void Session::End(base::CloseReason reason, std::string_view why) {
  if (phase_ == Phase::kLinger) {
    Close();
  } else {
    Fail(reason, Side::kDownstream, absl::CancelledError(base::ToAbsl(why)));
  }
}

// ---------------------------------------------------------------- the record

void Session::Record(const base::Failure& end) {
  BeforeRecord(end);
  const bool failed = end.reason != CloseReason::kOk;
  if (worker_.shared.access_log != nullptr || (failed && worker_.shared.failures != nullptr)) {
    telemetry::AccessRecord record = MakeRecord(end);
    if (failed && worker_.shared.failures != nullptr) {
      worker_.shared.failures->Add(record);
    }
    if (worker_.shared.access_log != nullptr) {
      worker_.shared.access_log->Add(std::move(record));
    }
  }
  CountEnd(end);  // last: who sees the count finds the record
}

void Session::CountEnd(const base::Failure& end) {
  const size_t direction = At(via_.direction);
  worker_.metrics.closed[direction][At(end.reason)].Add(1);
  if (security_ == telemetry::Security::kNone) {
    worker_.metrics.secured[direction][At(security_)].Add(1);
  }
  if ((IsHandshaking(phase_) || phase_ == Phase::kIdentify) && end.reason != CloseReason::kOk) {
    worker_.metrics.handshake_failures[direction][At(end.reason)].Add(1);
  }
}

telemetry::AccessRecord Session::MakeRecord(const base::Failure& end) const {
  telemetry::AccessRecord record;
  record.connection_id = id_;
  record.opened = opened_;
  record.duration = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - began_);
  record.direction = via_.direction;
  record.security = security_;
  record.tunnel = via_.tunnel != nullptr ? via_.name : "";
  record.downstream_address = peer_address_.ToString();
  record.destination = DestinationText();
  record.upstream_address =
      upstream_address_ == net::SocketAddress() ? "" : upstream_address_.ToString();
  const Transport* const mesh = mesh_transport();
  const bool tls = security_ == telemetry::Security::kMutualTls ||
                   security_ == telemetry::Security::kTlsOnly || phase_ == Phase::kHandshake;
  if (mesh != nullptr && tls) {
    tls::TlsFacts facts = mesh->facts();
    record.tls_version = std::move(facts.version);
    record.tls_cipher = std::move(facts.cipher);
    record.tls_group = std::move(facts.group);
    record.alpn = std::move(facts.alpn);
    record.tls_resumed = facts.resumed;
    record.peer_id = mesh->peer() != nullptr ? mesh->peer()->id.uri() : end.peer_id;
    record.reauthentications = Renewals();
    record.local_id = worker_.identity != nullptr ? worker_.identity->svid().id().uri() : "";
  }
  record.sni = sni_;
  if (relay_.has_value()) {
    record.bytes_from_downstream = relay_->bytes_from(Side::kDownstream);
    record.bytes_from_upstream = relay_->bytes_from(Side::kUpstream);
  }
  record.policy_rule = policy_rule_;
  if (notes_ != nullptr) {
    record.policy_audit = notes_->audit;
    record.application_sni = notes_->application_sni;
    record.application_alpn = notes_->application_alpn;
  }
  record.end = end;
  return record;
}

// With one that no visit has noted yet.
uint32_t Session::Renewals() const {
  const Transport* const mesh = mesh_transport();
  const bool unseen = peer_watch_.not_after != 0 && mesh != nullptr && mesh->peer() != nullptr &&
                      absl::ToUnixMillis(mesh->peer()->not_after) != peer_watch_.not_after;
  return peer_watch_.renewals + (unseen ? 1 : 0);
}

std::string Session::DestinationText() const {
  if (via_.tunnel != nullptr) {
    return via_.tunnel->target.ToString();
  }
  if (std::string asked = AskedFor(); !asked.empty()) {
    return asked;
  }
  return destination_ == net::SocketAddress() ? "" : destination_.ToString();
}

ConnectionInfo Session::Info() const {
  ConnectionInfo info;
  info.id = id_;
  info.direction = via_.direction;
  info.phase = std::string(Token(phase_));
  info.tunnel = via_.tunnel != nullptr ? via_.name : "";
  info.downstream_address = peer_address_.ToString();
  info.destination = DestinationText();
  info.upstream_address =
      upstream_address_ == net::SocketAddress() ? "" : upstream_address_.ToString();
  const Transport* const mesh = mesh_transport();
  info.peer_id = mesh != nullptr && mesh->peer() != nullptr ? mesh->peer()->id.uri() : "";
  if (!info.peer_id.empty()) {
    info.peer_not_after = mesh->peer()->not_after;
    info.reauthentications = Renewals();
  }
  info.security = security_;
  info.opened = opened_;
  if (relay_.has_value()) {
    info.bytes_from_downstream = relay_->bytes_from(Side::kDownstream);
    info.bytes_from_upstream = relay_->bytes_from(Side::kUpstream);
  }
  return info;
}

}  // namespace postern::session
