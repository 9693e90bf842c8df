// SPDX-License-Identifier: Apache-2.0
// What a session does about its peer's certificate while the connection lives: a server asks for
// the renewed one in time, and either side decides what happens when the end has come.
#include <algorithm>

#include "common/base/enum_index.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "proxy/session/expiry_watch.h"
#include "proxy/session/reauth_schedule.h"
#include "proxy/session/session.h"
#include "proxy/session/session_table.h"

namespace postern::session {
namespace {

constexpr int kAlertCertificateExpired = 45;

}  // namespace

// From the relay on: before it each phase has its deadline.
void Session::WatchPeer() {
  const Transport* const mesh = mesh_transport();
  if (mesh == nullptr || mesh->peer() == nullptr) {
    return;
  }
  NotePeer(*mesh->peer());
  VisitAt(NextVisit(*mesh, worker_.expiry.Now()));
}

void Session::UnwatchPeer() {
  VisitAt(0);
  SetPastExpiry(false);
}

void Session::VisitAt(int64_t at) {
  worker_.expiry.Move(id_, peer_watch_.visit, at);
  peer_watch_.visit = at;
}

void Session::NotePeer(const x509::VerifiedPeer& peer) {
  peer_watch_.not_after = absl::ToUnixMillis(peer.not_after);
  peer_watch_.ask_from = absl::ToUnixMillis(FirstAsk(peer, id_));
  peer_watch_.looks = 0;
}

void Session::VisitPeer() {
  peer_watch_.visit = 0;  // the watch has taken it out
  Transport* const mesh = mesh_transport();
  if (phase_ != Phase::kRelay || mesh == nullptr || mesh->peer() == nullptr) {
    return;
  }
  const int64_t now = worker_.expiry.Now();
  if (absl::ToUnixMillis(mesh->peer()->not_after) != peer_watch_.not_after) {
    NotePeer(*mesh->peer());
    ++peer_watch_.renewals;
    Recheck();
    if (IsOver()) {
      return;
    }
  }
  if (now >= peer_watch_.not_after && !MayOutlivePeer()) {
    EndOfPeer(*mesh);
    return;
  }
  SetPastExpiry(now >= peer_watch_.not_after);
  AskIfDue(*mesh, now);
  VisitAt(NextVisit(*mesh, now));
}

void Session::AskIfDue(Transport& mesh, int64_t now) {
  if (mesh.reauth() != tls::ReauthState::kIdle || now < peer_watch_.ask_from) {
    return;
  }
  // Whether this one brings something newer is seen at a later visit; until then it is the last.
  const absl::Duration left = absl::Milliseconds(peer_watch_.not_after - now);
  peer_watch_.ask_from = now + absl::ToInt64Milliseconds(AskAgainAfter(left));
  peer_watch_.looks = 0;
  mesh.AskPeerAgain();
}

int64_t Session::NextVisit(const Transport& mesh, int64_t now) {
  const bool past = now >= peer_watch_.not_after;
  int64_t next = past ? now + absl::ToInt64Milliseconds(kPastExpiryPeriod) : peer_watch_.not_after;
  switch (mesh.reauth()) {
    case tls::ReauthState::kUnable:
      break;
    case tls::ReauthState::kIdle:
      next = std::min(next, std::max(peer_watch_.ask_from, now + 1));
      break;
    case tls::ReauthState::kUnderWay:
      next = std::min(next, now + absl::ToInt64Milliseconds(LookAgainAfter(peer_watch_.looks)));
      peer_watch_.looks = static_cast<uint8_t>(std::min(peer_watch_.looks + 1, 255));
      break;
  }
  return next;
}

// The policy and the trust of today are applied at each of their changes. What they cannot tell is
// whether the issuer still vouches for the peer: that needs an issuer who is heard.
bool Session::MayOutlivePeer() const {
  switch (worker_.config().on_peer_expiry) {
    case config::OnPeerExpiry::kAllow:
      return true;
    case config::OnPeerExpiry::kClose:
      return false;
    case config::OnPeerExpiry::kAuto:
      break;
  }
  return worker_.shared.hears_issuer && worker_.shared.hears_issuer();
}

void Session::EndOfPeer(const Transport& mesh) {
  const x509::VerifiedPeer& peer = *mesh.peer();
  base::Failure failure;
  failure.reason = base::CloseReason::kPeerExpiredOpen;
  failure.side = mesh_side();
  failure.detail = absl::UnauthenticatedError(base::StrCat(
      "the certificate that ", peer.id.uri(), " has shown (serial ", peer.serial, ") expired at ",
      absl::FormatTime(absl::RFC3339_sec, peer.not_after, absl::UTCTimeZone()),
      mesh.reauth() == tls::ReauthState::kUnderWay
          ? ", and it has not answered when it was asked to prove itself again"
          : ""));
  Fail(std::move(failure), kAlertCertificateExpired);
}

void Session::SetPastExpiry(bool past) {
  if (past == peer_watch_.past) {
    return;
  }
  peer_watch_.past = past;
  const auto direction = base::At(via_.direction);
  (past ? worker_.metrics.past_expiry_began : worker_.metrics.past_expiry_ended)[direction].Add(1);
}

}  // namespace postern::session
