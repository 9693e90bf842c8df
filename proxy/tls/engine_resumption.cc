// SPDX-License-Identifier: Apache-2.0
// Resumption, as both roles of an engine see it. A server seals what it found out about its client
// into a ticket; a client keeps what it found out about its server beside the session. Whoever
// resumes has these facts, and no certificate is shown or verified: so each is judged again here.
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "proxy/tls/lean_session.h"
#include "proxy/tls/session_facts.h"
#include "proxy/tls/tls_engine_impl.h"

namespace postern::tls {
namespace {

using SessionPtr = x509::OpensslPtr<SSL_SESSION, SSL_SESSION_free>;

// So often at least a peer proves with its own key who it is.
constexpr absl::Duration kLongestSession = absl::Hours(1);
constexpr int kAlertBadCertificate = 42;
constexpr int kAlertCertificateRevoked = 44;
constexpr int kAlertCertificateExpired = 45;

}  // namespace

int OnTicketKey(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                EVP_MAC_CTX* mac, int seal) noexcept {
  const TicketKeys& keys = *EngineOf(ssl)->context->impl().options.ticket_keys;
  return seal != 0 ? keys.ReadyToSeal(name, iv, cipher, mac)
                   : keys.ReadyToOpen(name, iv, cipher, mac);
}

int OnTicketMade(SSL* ssl, void* /*arg*/) noexcept {
  return EngineOf(ssl)->PutFacts(SSL_get_session(ssl));
}

SSL_TICKET_RETURN OnTicketOpened(SSL* ssl, SSL_SESSION* session, const unsigned char* /*name*/,
                                 size_t /*name_length*/, SSL_TICKET_STATUS status,
                                 void* /*arg*/) noexcept {
  // Ignored is not refused: a full handshake follows. Used is used without a new ticket.
  return EngineOf(ssl)->TakesTicket(session, status) ? SSL_TICKET_RETURN_USE
                                                     : SSL_TICKET_RETURN_IGNORE;
}

int OnNewSession(SSL* ssl, SSL_SESSION* session) noexcept {
  EngineOf(ssl)->KeepSession(session);
  return 0;  // no reference was kept
}

// ---------------------------------------------------------------- client

void TlsEngine::Impl::OfferSession(std::string_view destination) {
  const TlsContext::Impl& ours = context->impl();
  if (is_server() || !ours.resumes() || destination.empty() || expected.empty()) {
    return;
  }
  session_key = destination;
  for (const x509::SpiffeIdPattern& one : expected) {
    base::StrAppend(session_key, "\n", one.ToString());
  }
  if (pins != nullptr) {
    base::StrAppend(session_key, "\n", pins->ToString());
  }
  offered = ours.options.sessions->Find(session_key, ours.options.clock->Now());
  if (offered == nullptr) {
    return;
  }
  const uint8_t* at = offered->der.data();
  if (ours.JudgeRevocation(offered->peer, ours.options.clock->Now()).has_value()) {
    ForgetOffer();  // a full handshake finds out, and says so
    return;
  }
  const SessionPtr session(d2i_SSL_SESSION(nullptr, &at, static_cast<long>(offered->der.size())));
  if (session == nullptr || !IsExpected(offered->peer.id) || PinMismatch(offered->peer) ||
      SSL_set_session(ssl.get(), session.get()) != 1) {
    ForgetOffer();
  }
  ERR_clear_error();
}

void TlsEngine::Impl::ForgetOffer() {
  if (offered != nullptr) {
    context->impl().options.sessions->Forget(session_key, *offered);
    offered.reset();
  }
}

// Of proxies of ours alone: there are servers that give tickets and fail on them. And one for each
// full handshake: what is sent beyond it, or on a session that was resumed, would only move the
// deadline.
void TlsEngine::Impl::KeepSession(SSL_SESSION* session) {
  if (session_key.empty() || !peer.has_value() || phase != Phase::kOpen ||
      negotiated.alpn != kMeshAlpn) {
    return;
  }
  const TlsOptions& options = context->impl().options;
  const absl::Time now = options.clock->Now();
  const absl::Duration lifetime = absl::Seconds(SSL_SESSION_get_ticket_lifetime_hint(session));
  const absl::Time until = std::min(session_until, now + lifetime);
  std::vector<uint8_t> der = until > now ? LeanSession(session) : std::vector<uint8_t>();
  if (!der.empty()) {
    options.sessions->Put(session_key,
                          std::make_shared<const CachedSession>(std::move(der), *peer, until));
  }
  std::string().swap(session_key);
}

// The SSL has read nothing since the handshake, so this record has the number that it waits for. It
// parses the tickets and derives their secrets; what it would answer is not sent (PutOutput), as
// its write keys are those that our own records use.
bool TlsEngine::Impl::TakeTickets(base::ByteSpan record) {
  replayed = record;
  uint8_t byte = 0;
  const SslCallResult call =
      SslCall(ssl.get(), [&](SSL* s) { return SSL_read(s, &byte, sizeof(byte)); });
  const bool whole = replayed.empty();
  replayed = {};
  if (call.error == SSL_ERROR_WANT_READ && whole && SSL_has_pending(ssl.get()) == 0) {
    return true;
  }
  const int alert = std::exchange(alert_sent, -1);
  Fail(call);
  AlertPeer(alert >= 0 ? alert : SSL_AD_INTERNAL_ERROR);
  return false;
}

// ---------------------------------------------------------------- server

int TlsEngine::Impl::PutFacts(SSL_SESSION* session) {
  const TlsOptions& options = context->impl().options;
  const absl::Time until = std::exchange(session_until, absl::InfinitePast());
  const absl::Duration lifetime = until - options.clock->Now();
  if (!peer.has_value()) {
    return 0;
  }
  const std::optional<std::string> facts =
      SerializeSessionFacts({BindingOf(*options.trust, listener), until, *peer});
  const int set =
      facts.has_value()
          ? SSL_SESSION_set1_ticket_appdata(session, facts->data(), facts->size())
          : SSL_SESSION_set1_ticket_appdata(session, nullptr, 0);  // worth nothing to anybody
  if (set != 1 ||
      SSL_SESSION_set_timeout(session, static_cast<long>(absl::ToInt64Seconds(lifetime))) != 1) {
    return 0;
  }
  return DropCertificate(session) ? 1 : 0;
}

bool TlsEngine::Impl::GiveTicket() {
  if (ssl == nullptr || !is_server()) {
    return true;
  }
  const bool in_time = session_until - context->impl().options.clock->Now() >= absl::Seconds(1);
  if (in_time && SSL_new_session_ticket(ssl.get()) == 1) {
    const SslCallResult call = SslCall(ssl.get(), [](SSL* s) { return SSL_do_handshake(s); });
    if (call.rc != 1) {
      Fail(call);
      return false;
    }
  }
  ssl.reset();
  return true;
}

bool TlsEngine::Impl::TakesTicket(SSL_SESSION* session, SSL_TICKET_STATUS status) {
  const TlsOptions& options = context->impl().options;
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) {
    ticket_use = TicketUse::kUnknownKey;
    return false;
  }
  void* data = nullptr;
  size_t size = 0;
  std::optional<SessionFacts> facts;
  if (SSL_SESSION_get0_ticket_appdata(session, &data, &size) == 1) {
    facts = ParseSessionFacts({static_cast<const uint8_t*>(data), size});
  }
  if (!facts.has_value()) {
    ticket_use = TicketUse::kMalformed;
    return false;
  }
  const base::Sha256Digest binding = BindingOf(*options.trust, listener);
  if (CRYPTO_memcmp(binding.data(), facts->binding.data(), binding.size()) != 0) {
    ticket_use = TicketUse::kChanged;
    return false;
  }
  const absl::Time now = options.clock->Now();
  if (facts->until <= now || facts->peer.not_after <= now || facts->peer.not_before > now) {
    ticket_use = TicketUse::kExpired;
    return false;
  }
  if (context->impl().JudgeRevocation(facts->peer, now).has_value()) {
    ticket_use = TicketUse::kChanged;
    return false;
  }
  ticket_use = TicketUse::kResumed;
  return true;
}

// ---------------------------------------------------------------- both

bool TlsEngine::Impl::AwaitsTicket() const {
  if (is_server()) {
    return session_until != absl::InfinitePast();
  }
  return !session_key.empty() && session_until != absl::InfinitePast() &&
         negotiated.alpn == kMeshAlpn;
}

bool TlsEngine::Impl::RestoreFacts() {
  const TlsContext::Impl& ours = context->impl();
  if (!negotiated.resumed) {
    ForgetOffer();
    if (ticket_use == TicketUse::kResumed) {
      ticket_use = TicketUse::kExpired;  // OpenSSL looks at the time as well
    }
    if (ours.resumes() && peer.has_value()) {
      session_until = std::min(
          {ours.options.clock->Now() + kLongestSession, peer->not_after, ours.svid->not_after()});
    }
    return true;
  }
  peer.reset();
  ticket_use = TicketUse::kResumed;
  if (!is_server() && offered != nullptr) {
    peer = offered->peer;
  } else if (is_server()) {
    void* data = nullptr;
    size_t size = 0;
    SSL_SESSION_get0_ticket_appdata(SSL_get_session(ssl.get()), &data, &size);
    std::optional<SessionFacts> facts =
        ParseSessionFacts({static_cast<const uint8_t*>(data), size});
    if (facts.has_value()) {
      peer = std::move(facts->peer);
    }
  }
  const bool acceptable = JudgeRestored();
  if (!acceptable) {
    peer.reset();
    ForgetOffer();
  }
  offered.reset();
  std::string().swap(session_key);
  return acceptable;
}

// What VerifyPeer does not get to see in a handshake that resumes.
bool TlsEngine::Impl::JudgeRestored() {
  int alert = kAlertBadCertificate;
  if (!peer.has_value()) {
    failure.reason = base::CloseReason::kInternal;
    failure.detail = absl::InternalError("a session was resumed that nobody knows the peer of");
  } else if (peer->not_after <= context->impl().options.clock->Now()) {
    alert = kAlertCertificateExpired;
    failure.reason = base::CloseReason::kPeerExpired;
    failure.x509_error = X509_V_ERR_CERT_HAS_EXPIRED;
    failure.detail = absl::UnauthenticatedError(
        "the certificate that the peer showed when the session was made has expired");
  } else if (std::optional<x509::ChainError> revoked =
                 context->impl().JudgeRevocation(*peer, context->impl().options.clock->Now())) {
    alert = kAlertCertificateRevoked;
    failure.reason = revoked->reason;
    failure.x509_error = revoked->x509_error;
    failure.detail = absl::UnauthenticatedError(revoked->detail);
  } else if (!IsExpected(peer->id)) {
    failure.reason = base::CloseReason::kIdentityMismatch;
    failure.detail = absl::UnauthenticatedError(
        base::StrCat("the session was made with ", peer->id.uri(), ", who is not expected"));
  } else if (const std::optional<std::string> mismatch = PinMismatch(*peer)) {
    failure.reason = base::CloseReason::kPinMismatch;
    failure.detail = absl::UnauthenticatedError(*mismatch);
  } else {
    return true;
  }
  failure.peer_id = peer.has_value() ? peer->id.uri() : "";
  AlertPeer(alert);
  phase = Phase::kFailed;
  return false;
}

std::optional<std::string> TlsEngine::Impl::PinMismatch(const x509::VerifiedPeer& who) const {
  return pins == nullptr ? std::nullopt : pins->Mismatch(who);
}

bool TlsEngine::Impl::IsExpected(const x509::SpiffeId& id) const {
  return expected.empty() ||
         std::any_of(expected.begin(), expected.end(),
                     [&](const x509::SpiffeIdPattern& one) { return one.Matches(id); });
}

}  // namespace postern::tls
