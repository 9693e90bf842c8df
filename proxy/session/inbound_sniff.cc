// SPDX-License-Identifier: Apache-2.0
// What comes on an intercepted port, told by the first bytes; and on a permissive one, by who says
// them (docs/adr/0026-server-speaks-first.md).
#include <utility>

#include "common/base/strings.h"
#include "proxy/session/admission.h"
#include "proxy/session/inbound_session.h"
#include "proxy/session/socket_state.h"

namespace postern::session {

using base::CloseReason;
using base::Side;
using config::PeerMode;
using telemetry::PlaintextReason;

void InboundSession::StartFirstBytes() {
  if (IsMember()) {  // asks the issuer, too, so that it is known when it matters
    StartSniff();
    return;
  }
  Advance(Phase::kFirstBytes);
  WatchDownstream();
  if (worker().shared.ports->Knows(PortMemory::Fact::kServerFirst, destination_.port())) {
    ReadFirstBytes();  // a ClientHello that is here already
    if (phase() == Phase::kFirstBytes) {
      OnSilence();
    }
  }
}

bool InboundSession::IsMember() const {
  return worker().shared.endpoints != nullptr && !peer_address().is_unix() &&
         worker().shared.endpoints->IsMeshMember(peer_address().ip());
}

// A permissive port and a client that says nothing: the server may have to speak first. A member of
// the mesh always speaks first, and is waited for; so is a client whom policy does not let in
// without an identity, for it can only be a member.
void InboundSession::OnSilence() {
  if (IsMember() || !MayPassPlaintext()) {
    StartSniff();
  } else {
    PassThrough(PlaintextReason::kServerFirst, {});
  }
}

bool InboundSession::MayPassPlaintext() const {
  return worker().policy != nullptr && worker().policy->AuthorizeOn(ModeNow(), Facts()).allowed;
}

void InboundSession::StartSniff() {
  Advance(Phase::kSniff);
  if (CountsAsHandshake()) {
    WatchDownstream();
  }
}

// A client that was let in because it was silent counted as a connection alone. From where it
// begins a handshake, or is waited for to do so, it counts for one again, up to the deadline of a
// handshake. False: there are too many, and the session has failed.
bool InboundSession::CountsAsHandshake() {
  if (upstream_ == nullptr || std::exchange(late_, true)) {
    return true;
  }
  const auto refusal = AdmitLateHandshake(worker(), hold_);
  if (refusal.has_value()) {
    Fail(refusal->reason, Side::kDownstream,
         absl::ResourceExhaustedError(base::ToAbsl(refusal->why)));
  }
  return !refusal.has_value();
}

void InboundSession::ReadFirstBytes() {
  const base::MutableByteSpan room = worker().tls_scratch.input();
  const TransportResult read = downstream_->Read(room);
  switch (read.outcome) {
    case TransportOutcome::kDone:
      if (phase() != Phase::kSniff) {
        if (upstream_ != nullptr) {
          upstream_->WantRead(false);
        }
        Advance(Phase::kSniff);
      }
      Sniff(room.first(read.bytes));
      return;
    case TransportOutcome::kWouldBlock:
      return;
    case TransportOutcome::kEnd:
      EndedBeforeFirstByte();
      return;
    case TransportOutcome::kFailed:
      FailBy(*downstream_, Side::kDownstream);
      return;
  }
}

// An end where a ClientHello should be. A port check that connects and closes is no failure; a
// permissive port passes the end on, as its server may still have something to say, but not to a
// member of the mesh: it would be said in plaintext.
void InboundSession::EndedBeforeFirstByte() {
  const bool member = (first_bytes_.empty() || tls::BeginsAsTls(first_bytes_)) && IsMember();
  if (mode_ == PeerMode::kPermissive && !member) {
    PassThrough(PlaintextReason::kPermissive, {});
    return;
  }
  if (first_bytes_.empty()) {
    Finish();
    return;
  }
  Fail(CloseReason::kHandshakeFailed, Side::kDownstream,
       absl::DataLossError("the client closed its connection within the ClientHello"));
}

void InboundSession::Sniff(base::ByteSpan bytes) {
  if (!first_bytes_.empty()) {
    KeepFirstBytes(bytes);
    bytes = first_bytes_;
  }
  const bool strict = mode_ == PeerMode::kStrict;
  const tls::SniffResult sniffed = tls::SniffClientHello(bytes);
  switch (sniffed.verdict) {
    case tls::SniffVerdict::kNeedMore:
      KeepFirstBytes(first_bytes_.empty() ? bytes : base::ByteSpan());
      CountsAsHandshake();
      return;
    case tls::SniffVerdict::kClientHello:
      OnClientHello(sniffed.hello, bytes);
      return;
    case tls::SniffVerdict::kNotTls:
      if (strict) {
        Fail(CloseReason::kPlaintextRefused, Side::kDownstream,
             absl::PermissionDeniedError("the first bytes are no TLS"));
        return;
      }
      break;
    case tls::SniffVerdict::kMalformed:
      if (strict) {
        Fail(CloseReason::kInvalidClientHello, Side::kDownstream,
             absl::InvalidArgumentError("malformed ClientHello"));
        return;
      }
      break;
    case tls::SniffVerdict::kTooLarge:
      if (strict) {
        Fail(CloseReason::kClientHelloTooLarge, Side::kDownstream,
             absl::ResourceExhaustedError(
                 base::StrCat("ClientHello of more than ", tls::kMaxClientHelloBytes, " bytes")));
        return;
      }
      break;
  }
  PassThrough(PlaintextReason::kPermissive, bytes);
}

void InboundSession::OnClientHello(const tls::ClientHello& hello, base::ByteSpan bytes) {
  sni_ = hello.sni;
  if (mode_ == PeerMode::kStrict || tls::IsMeshHello(hello)) {
    if (!CountsAsHandshake()) {
      return;
    }
    passes_.reset();
    Handshake(bytes);
  } else {
    NoteApplicationTls(hello);
    PassThrough(PlaintextReason::kApplicationTls, bytes);
  }
}

// Both are silent; whoever speaks first decides. A mesh client that was late is still taken in.
void InboundSession::StartServerFirst() {
  if (!AnnounceToSilent()) {
    return;
  }
  Advance(Phase::kServerFirst);
  WatchDownstream();
  WatchUpstream();
}

void InboundSession::OnServerSpoke() {
  ReadFirstBytes();  // a ClientHello that is here already came first
  if (phase() != Phase::kServerFirst) {
    return;
  }
  // One that only hung up on a silent client, as a web server does some time, does not speak first.
  if (HasInput(static_cast<const PlainTransport&>(*upstream_).stream())) {
    worker().shared.ports->Note(PortMemory::Fact::kServerFirst, destination_.port());
  }
  if (IsMember()) {  // the issuer has answered meanwhile
    StartSniff();
    return;
  }
  if (MayBeLateMember()) {
    Advance(Phase::kServerHeld);
  } else {
    LetServerSpeak();
  }
}

// Whether a ClientHello that was sent at once may still be on its way. There is nothing to wait for
// where none of the mesh was ever seen, when the client's address was greeted before and nobody is
// being asked about it.
bool InboundSession::MayBeLateMember() const {
  const bool asked = worker().shared.endpoints != nullptr && !peer_address().is_unix() &&
                     worker().shared.endpoints->AwaitsAnswer(peer_address().ip());
  const bool is_new =
      !peer_address().is_unix() && !worker().shared.ports->WasGreeted(peer_address().ip());
  return std::chrono::steady_clock::now() - began() < kHelloGrace &&
         (asked || is_new ||
          worker().shared.ports->Knows(PortMemory::Fact::kMesh, destination_.port()));
}

void InboundSession::LetServerSpeak() {
  if (IsMember()) {
    StartSniff();
    return;
  }
  if (!peer_address().is_unix()) {
    worker().shared.ports->NoteGreeted(peer_address().ip());
  }
  CountPlaintext();
  Relay();
}

// After the server has spoken, a ClientHello of the mesh comes too late: its sender would take the
// server's bytes for a broken handshake. The reset tells it to try again, and the next one from its
// address is waited for; of the port, who has proved nothing teaches nothing. One that comes in
// pieces cannot be told from the application's own, which no known protocol begins with after a
// greeting.
bool InboundSession::JudgeFirstBytes(base::ByteSpan bytes) {
  if (mode_ == PeerMode::kOpaque || mode_ == PeerMode::kSkip) {
    return true;
  }
  if (passes_ != PlaintextReason::kServerFirst) {
    if (passes_ != PlaintextReason::kApplicationTls) {
      NoteApplicationTls(bytes);
    }
    return true;
  }
  const tls::SniffResult sniffed = tls::SniffClientHello(bytes);
  const bool late =
      sniffed.verdict == tls::SniffVerdict::kClientHello
          ? tls::IsMeshHello(sniffed.hello)
          : sniffed.verdict == tls::SniffVerdict::kNeedMore && tls::BeginsAsTls(bytes);
  if (!late) {
    NoteApplicationTls(bytes);
    return true;
  }
  if (!peer_address().is_unix()) {
    worker().shared.ports->ForgetGreeted(peer_address().ip());
  }
  Fail(CloseReason::kLateClientHello, Side::kDownstream,
       absl::DeadlineExceededError("a ClientHello of the mesh came after the server had spoken"));
  return false;
}

void InboundSession::OnDeadline() {
  if (phase() == Phase::kFirstBytes) {
    OnSilence();
    return;
  }
  if (phase() == Phase::kServerHeld) {
    LetServerSpeak();
    return;
  }
  if (phase() == Phase::kSniff && mode_ == PeerMode::kPermissive && first_bytes_.empty()) {
    OnNoHello();
    return;
  }
  Session::OnDeadline();
}

// A member that said nothing is never answered in plaintext. A client that policy did not let in is
// told so in the record: it was no member after all.
void InboundSession::OnNoHello() {
  if (IsMember() || upstream_ != nullptr) {
    Fail(CloseReason::kSniffTimeout, Side::kDownstream,
         absl::DeadlineExceededError("a member of the mesh sent no ClientHello"));
  } else {
    PassThrough(PlaintextReason::kServerFirst, {});
  }
}

void InboundSession::KeepFirstBytes(base::ByteSpan bytes) {
  first_bytes_.insert(first_bytes_.end(), bytes.begin(), bytes.end());
}

void InboundSession::NoteSniffed() {
  worker().metrics.sniff_seconds.Observe(std::chrono::steady_clock::now() - began());
}

}  // namespace postern::session
