// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/failure.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"
#include "proxy/net/timer.h"
#include "proxy/session/dialer.h"
#include "proxy/session/phase.h"
#include "proxy/session/place_finder.h"
#include "proxy/session/relay.h"
#include "proxy/session/route.h"
#include "proxy/session/transport.h"
#include "proxy/session/worker.h"
#include "proxy/session/worker_context.h"
#include "proxy/telemetry/access_record.h"
#include "proxy/tls/client_hello.h"

namespace postern::session {

// Nothing that was sent was acknowledged for so long: the peer is dead.
inline constexpr std::chrono::seconds kPeerDeadAfter{60};
// How long what a server says first is kept back on a port that members of the mesh use as well,
// counted from the accept: their ClientHello follows TCP's handshake at once, so that this is time
// for a busy peer, not for the network.
inline constexpr std::chrono::milliseconds kHelloGrace{20};
// How long a refused peer may take to read its alert and close.
inline constexpr std::chrono::milliseconds kLingerTime{1000};

// What both directions of a connection's life have in common: the phase and its deadline, the two
// transports, the handshake, the relay, the one error exit Fail, the one end Close, and the record.
// The steps are in InboundSession and OutboundSession. Owned by the SessionTable; worker's thread.
class Session : private Transport::Handler, private Relay::Owner {
 public:
  virtual ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The first step. The session may have ended when this returns.
  virtual void Start() = 0;

  uint64_t id() const { return id_; }
  Phase phase() const { return phase_; }
  ConnectionInfo Info() const;

  // The worker's news.
  void IdentityPublished();  // wakes a session that waits for a certificate
  void Recheck();            // policy or trust has changed: closes the session if it lost
  void CheckLiveness();      // looks for a dead peer
  void VisitPeer();          // the time that was set for its peer's certificate has come
  void End(base::CloseReason reason, std::string_view why);  // drain deadline, stop

 protected:
  Session(WorkerContext& worker, const ListenerSpec& via, const net::SocketAddress& peer);

  // What a direction does in its phases before the relay.
  virtual void OnDownstreamReadable() = 0;
  virtual void OnUpstreamReadable() = 0;
  virtual void OnIdentity() = 0;
  virtual void OnHandshakeDone() = 0;
  virtual void OnConnected(std::unique_ptr<net::Stream> stream) = 0;
  virtual void OnDeadline();
  // The first bytes that the downstream sends into the relay; false: they are refused.
  virtual bool JudgeFirstBytes(base::ByteSpan bytes) = 0;
  // Whether the connection would be let in under the present policy and trust; else why not.
  virtual std::optional<base::Failure> Judge() = 0;
  // Ends a connection that was let in, if it would not be any more: true then.
  bool FailIfLost();
  // The part of it that both directions have: whether the peer's root is still trusted, and nothing
  // of the peer is revoked. Null: there is no peer to judge.
  std::optional<base::Failure> JudgePeer(const x509::VerifiedPeer* peer) const;
  // The TLS alert that tells a peer of this refusal.
  static int AlertOf(const base::Failure& refusal);
  // The candidate that is about to be dialled, where there is a choice of several.
  virtual void OnCandidate(const Candidate& /*candidate*/) {}
  // Whether who is about to be dialled there is this workload, to whom rules lead that connection
  // through this proxy (intercept::kOwnWorkloadPriority).
  virtual bool IsOwnWorkload(const net::SocketAddress& /*address*/) const { return false; }
  // Tells the downstream in its own language that it is refused; false: it is not, and gets a RST.
  virtual bool TellDownstream(const base::Failure& /*failure*/) { return false; }
  // What the downstream has asked for in its own words; empty: its destination says it.
  virtual std::string AskedFor() const { return ""; }
  // Last chance to count what was never known for certain.
  virtual void BeforeRecord(const base::Failure& /*end*/) {}

  // What steps are made of.
  void Advance(Phase next);
  void AwaitIdentity();
  bool IdentityIsUsable();  // false: the session has failed
  void StartHandshake(std::unique_ptr<tls::TlsEngine> engine, std::unique_ptr<net::Stream> stream,
                      base::ByteSpan first_bytes);
  void StartConnect(const net::SocketAddress& address);
  // To one of several, or to a name's addresses: what fails before it is authenticated is tried
  // elsewhere.
  void StartConnect(std::vector<Place> places);
  void StartConnect(std::vector<Candidate> candidates);
  // `preface` is what the upstream is told before the first bytes of the downstream.
  void StartRelay(base::ByteSpan first_bytes, base::ByteSpan preface = {});
  // Before the relay nobody reads the downstream: this tells a reset from bytes that can wait.
  void WatchDownstream();
  void LookAtWatchedDownstream();
  // The same where nothing but the relay can follow: its first bytes are kept for it.
  void TakeEarlyBytes();
  void KeepEarlyBytes(base::ByteSpan bytes) { early_.assign(bytes.begin(), bytes.end()); }
  void WatchUpstream();
  void Secure(telemetry::Security security);
  void PassPlaintext(telemetry::PlaintextReason reason);

  // What policy in audit mode would have refused the connection by; counted the first time.
  void NoteAudit(const std::string& rule);
  // What the application's own TLS asks for, if these first bytes begin with its ClientHello.
  void NoteApplicationTls(base::ByteSpan first_bytes);
  void NoteApplicationTls(const tls::ClientHello& hello);

  void Finish();  // a proper end: recorded as ok, closed
  // The one error exit. `alert`: the TLS alert for a peer that has finished its handshake; -1 none.
  void Fail(base::Failure failure, int alert = -1);
  void Fail(base::CloseReason reason, base::Side side, absl::Status detail, int alert = -1);
  // The exit for what fails on the way to the upstream: to another place, where there is one.
  void FailOver(base::Failure failure);
  bool HasAnotherPlace() const { return route_ != nullptr && route_->left() > 0; }
  static base::Failure FailureOf(base::CloseReason reason, base::Side side, absl::Status detail);
  static base::Failure FailureOf(const Transport& transport, base::Side side);
  // By what `transport`, of this side, says of its own failure.
  void FailBy(const Transport& transport, base::Side side);
  // The one end. Like Fail it does nothing the second time.
  void Close();

  base::Side mesh_side() const;
  Transport* mesh_transport() const;
  bool IsOver() const { return phase_ == Phase::kLinger || phase_ == Phase::kClosed; }
  WorkerContext& worker() const { return worker_; }
  const ListenerSpec& via() const { return via_; }
  const net::SocketAddress& peer_address() const { return peer_address_; }
  const net::SocketAddress& upstream_address() const { return upstream_address_; }
  telemetry::Security security() const { return security_; }
  std::chrono::steady_clock::time_point began() const { return began_; }
  base::ByteSpan early_bytes() const { return early_; }

  std::unique_ptr<Transport> downstream_;  // who connected
  std::unique_ptr<Transport> upstream_;    // who is dialled
  net::SocketAddress destination_;         // what was asked for; a tunnel's target when it is fixed
  std::string policy_rule_;
  std::string sni_;  // of the mesh's own ClientHello, or of one that was passed on

 private:
  void OnTransportReadable(Transport& transport) noexcept final;
  void OnTransportWritable(Transport& transport) noexcept final;
  bool OnFirstBytes(base::ByteSpan bytes) noexcept final;
  void OnRelayDone() noexcept final;
  void OnRelayFailed(const base::Failure& failure) noexcept final;

  void ArmDeadline(Deadline deadline);
  void OnTimer();
  bool IdleTimeLeft();
  std::chrono::milliseconds Share(std::chrono::milliseconds limit) const;
  void HandshakeStep(const TransportResult& result);
  void CountHandshake(tls::TicketUse ticket);
  Dialer& NewDialer();
  void OnDialled(absl::StatusOr<std::unique_ptr<net::Stream>> stream);
  void OnPlaces(absl::StatusOr<std::vector<Candidate>> candidates);
  void DialFirst(std::vector<Candidate> candidates);
  void DialNext();
  bool Dial(const net::SocketAddress& address);
  bool TryElsewhere(const base::Failure& failure);
  void NoteAttempt(const base::Failure& failure);
  void Linger();
  void DiscardFromRefused(Transport& refused);
  void WatchPeer();
  void UnwatchPeer();
  void VisitAt(int64_t at);
  void NotePeer(const x509::VerifiedPeer& peer);
  void AskIfDue(Transport& mesh, int64_t now);
  int64_t NextVisit(const Transport& mesh, int64_t now);
  bool MayOutlivePeer() const;
  void EndOfPeer(const Transport& mesh);
  void SetPastExpiry(bool past);
  void Record(const base::Failure& end);
  void CountEnd(const base::Failure& end);
  telemetry::AccessRecord MakeRecord(const base::Failure& end) const;
  uint32_t Renewals() const;
  std::string DestinationText() const;

  // Of the peer's certificate (session_expiry.cc); times in milliseconds since the epoch.
  struct PeerWatch {
    int64_t visit = 0;      // the entry in the worker's ExpiryWatch; 0: none
    int64_t not_after = 0;  // when it was looked at last
    int64_t ask_from = 0;   // not to be asked again before
    uint32_t renewals = 0;  // inside the connection
    uint8_t looks = 0;      // for the answer that is awaited
    bool past = false;      // the connection counts as one that has outlived it
  };

  // For the record of few connections.
  struct Notes {
    std::string audit;
    std::string application_sni, application_alpn;
  };
  Notes& notes();

  WorkerContext& worker_;
  const ListenerSpec& via_;
  const uint64_t id_;
  const net::SocketAddress peer_address_;
  net::SocketAddress upstream_address_;
  absl::Time opened_;
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point handshake_began_;
  std::chrono::milliseconds handshake_until_{0};  // on the loop's clock; 0: not counting
  net::Timer timer_;
  std::optional<Dialer> dialer_;
  std::unique_ptr<PlaceFinder> finder_;
  std::unique_ptr<Route> route_;  // null: there is no choice
  std::optional<Relay> relay_;
  std::vector<uint8_t> early_;  // from the downstream, for the relay
  std::unique_ptr<Notes> notes_;
  PeerWatch peer_watch_;
  uint32_t discarded_ = 0;
  uint8_t lingering_ = 0;  // transports that are waited for
  Phase phase_ = Phase::kAccept;
  telemetry::Security security_ = telemetry::Security::kNone;
};

}  // namespace postern::session
