// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "proxy/tls/engine_bio.h"
#include "proxy/tls/record_budget.h"
#include "proxy/tls/ssl_call.h"
#include "proxy/tls/tls_context_impl.h"
#include "proxy/tls/tls_engine.h"
#include "proxy/tls/write_secret.h"

namespace postern::tls {

// Output past this is not made before some of it has been sent.
inline constexpr size_t kOutputHighWater = 256U << 10U;

// For OpenSSL's callbacks: the engine of an SSL.
inline TlsEngine::Impl* EngineOf(const SSL* ssl) {
  return static_cast<TlsEngine::Impl*>(SSL_get_ex_data(ssl, 0));  // the app data
}

// What a TlsEngine is made of; for proxy/tls alone. It is the SSL's app data, so that OpenSSL's
// callbacks find it.
struct TlsEngine::Impl final : EngineIo {
  Impl(std::shared_ptr<const TlsContext> with, EngineScratch& on,
       std::vector<x509::SpiffeIdPattern> who)
      : context(std::move(with)), scratch(on), expected(std::move(who)) {}
  virtual ~Impl();

  absl::Status Open();

  // Resumption: engine_resumption.cc.
  void OfferSession(std::string_view destination);  // client, before its hello
  int PutFacts(SSL_SESSION* session);               // server, into its ticket; 0: it failed
  bool TakesTicket(SSL_SESSION* session, SSL_TICKET_STATUS status);
  void KeepSession(SSL_SESSION* session);  // client, when a ticket came
  bool RestoreFacts();  // after the handshake; false: it resumed, and the peer is not acceptable
  void GiveTicket();    // server, before it writes
  void ForgetOffer();   // client: what it offered is of no use
  void FreeSpareBuffers();
  bool JudgeRestored();
  bool IsExpected(const x509::SpiffeId& id) const;

  // EngineIo
  size_t TakeInput(base::MutableByteSpan buffer) noexcept override;
  void PutOutput(base::ByteSpan bytes) noexcept override;

  // OpenSSL's callbacks.
  int VerifyPeer(X509_STORE_CTX* store_ctx);
  void OnAlert(int where, int description);
  void OnReadRecord();
  void OnWrittenRecord(uint8_t outer_type);
  void OnWrittenHandshakeMessage(uint8_t type);

  SslCallResult ShakeHands();
  void ForgetKeyShares();
  // Judges a call that did not succeed: kWantRead, kEnd, or the end of the engine.
  EngineOutcome Judge(const SslCallResult& call);
  void Fail(const SslCallResult& call);
  void FailOnFlood();
  void AlertPeer(int description);

  // Input and output across turns.
  size_t KeptInput() const { return kept.size() - kept_at; }
  size_t Unsent() const { return unsent.size() - unsent_at; }
  size_t ScratchOutput() const;
  void KeepInput();
  void KeepOutput();

  bool is_server() const { return context->impl().is_server(); }

  enum class Phase : uint8_t { kHandshake, kOpen, kFailed };
  enum class WriteEnd : uint8_t { kOpen, kClosed };
  enum class ReadEnd : uint8_t { kOpen, kSeen };  // of the peer's direction: its close_notify
  enum class Flood : uint8_t { kNone, kSeen };
  // A message after the handshake makes OpenSSL set up its buffers of both directions, of 16 KB
  // each, and it releases one only when that one is used next.
  enum class Buffers : uint8_t { kInUse, kSpare };

  std::shared_ptr<const TlsContext> context;
  EngineScratch& scratch;
  std::vector<x509::SpiffeIdPattern> expected;
  x509::SslPtr ssl;

  base::ByteSpan fed;         // of this turn, not consumed yet
  std::vector<uint8_t> kept;  // of earlier turns; before `fed`
  size_t kept_at = 0;
  std::vector<uint8_t> unsent;  // of earlier turns; before the scratch's
  size_t unsent_at = 0;
  size_t scratch_sent = 0;

  Phase phase = Phase::kHandshake;
  WriteEnd write_end = WriteEnd::kOpen;
  ReadEnd read_end = ReadEnd::kOpen;
  Flood flood = Flood::kNone;
  Buffers buffers = Buffers::kInUse;
  RecordBudget budget;
  WriteSecret write_secret;

  std::string_view listener;  // server: to which its tickets are bound
  std::string session_key;    // client: in the cache; empty when no session is to be kept
  std::shared_ptr<const CachedSession> offered;  // client, until the handshake is done
  // The last moment of a session made by this handshake; InfinitePast: none is given or kept.
  absl::Time session_until = absl::InfinitePast();
  TicketUse ticket_use = TicketUse::kNone;

  std::optional<x509::VerifiedPeer> peer;
  std::optional<x509::ChainError> chain_error;
  int alert_sent = -1;
  int alert_received = -1;
  base::Failure failure;
};

}  // namespace postern::tls
