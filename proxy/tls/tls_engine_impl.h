// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/tls/engine_bio.h"
#include "proxy/tls/handshake_transcript.h"
#include "proxy/tls/record_cipher.h"
#include "proxy/tls/record_input.h"
#include "proxy/tls/record_layer.h"
#include "proxy/tls/ssl_call.h"
#include "proxy/tls/tls_context_impl.h"
#include "proxy/tls/tls_engine.h"

namespace postern::tls {

class Reauth;

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
       std::vector<x509::SpiffeIdPattern> who);
  virtual ~Impl();

  absl::Status Open();

  // Client: the key share of its hello, and what the peer took of it.
  void OfferShares(std::string_view to);
  void LearnShares();

  // Resumption: engine_resumption.cc.
  void OfferSession(std::string_view destination);  // client, before its hello
  int PutFacts(SSL_SESSION* session);               // server, into its ticket; 0: it failed
  bool TakesTicket(SSL_SESSION* session, SSL_TICKET_STATUS status);
  void KeepSession(SSL_SESSION* session);  // client, when a ticket came
  bool RestoreFacts();  // after the handshake; false: it resumed, and the peer is not acceptable
  bool AwaitsTicket() const;  // whether the SSL is still needed, to make a ticket or to take one
  bool GiveTicket();          // server, before it writes; false: the engine has failed
  bool TakeTickets(base::ByteSpan record);  // client; false: the engine has failed
  void ForgetOffer();                       // client: what it offered is of no use
  bool JudgeRestored();
  bool IsExpected(const x509::SpiffeId& id) const;
  std::optional<std::string> PinMismatch(const x509::VerifiedPeer& who) const;

  // EngineIo
  size_t TakeInput(base::MutableByteSpan buffer) noexcept override;
  void PutOutput(base::ByteSpan bytes) noexcept override;

  // OpenSSL's callbacks.
  int VerifyPeer(X509_STORE_CTX* store_ctx);
  void OnAlert(int where, int description);
  void OnHandshakeMessage(base::ByteSpan message);  // read or written, and not processed yet
  void OnKeyLog(std::string_view line);
  void OnWrittenRecord(uint8_t outer_type);

  SslCallResult ShakeHands();
  // After the handshake: from here on the records are ours. False: the engine has failed.
  bool TakeOverRecords();
  void NoteNegotiated();
  // The context to prove ourselves with, and to judge who proves himself: the worker's newest one.
  const std::shared_ptr<const TlsContext>& SharedNewest() const;
  const TlsContext& Newest() const { return *SharedNewest(); }
  void ForgetKeyShares();
  // Judges a call of the handshake that did not succeed: kWantRead, kEnd, or the end of the engine.
  EngineOutcome Judge(const SslCallResult& call);
  void Fail(const SslCallResult& call);
  void FailInside(const char* what);
  void FailOnFault(const RecordFault& fault);
  void FailOnAlert(int description);
  void AlertPeer(int description);

  // Some of what can be read now: kDone with any number of bytes, kWantRead, kEnd or kFailed. A
  // record that does not fit into `room` is opened aside if `aside`, and else left for later.
  EngineResult ReadSome(base::MutableByteSpan room, bool aside);
  EngineResult OpenRecord(base::ByteSpan record, base::MutableByteSpan room);
  size_t TakeOpened(base::MutableByteSpan room);

  // Output across turns.
  size_t Unsent() const { return unsent.size() - unsent_at; }
  size_t ScratchOutput() const;
  RecordBuffer& Output();  // takes the scratch for this engine
  void KeepOutput();

  // What OpenSSL would write by now is under keys and numbers that are ours: only a server's ticket
  // may still come from it.
  bool IsSslMuted() const { return phase != Phase::kHandshake && !is_server(); }
  bool is_server() const { return context->impl().is_server(); }

  enum class Phase : uint8_t { kHandshake, kOpen, kFailed };
  enum class WriteEnd : uint8_t { kOpen, kClosed };
  enum class ReadEnd : uint8_t { kOpen, kSeen };  // of the peer's direction: its close_notify
  // What OpenSSL knows of a finished handshake. A cipher's name is static; a group's belongs to the
  // SSL_CTX of the handshake, which a re-authentication lets go of.
  struct Negotiated {
    const char* cipher = "";
    std::string group;
    std::string alpn;
    bool resumed = false;
  };

  std::shared_ptr<const TlsContext> context;
  EngineScratch& scratch;
  std::vector<x509::SpiffeIdPattern> expected;
  std::shared_ptr<const x509::PeerPins> pins;  // null: none
  x509::SslPtr ssl;                      // null once neither the handshake nor a ticket needs it
  TrafficSecret read_secret;             // from the key log until the records are ours
  TrafficSecret write_secret;            // the same
  uint64_t written_by_ssl = 0;           // records under write_secret, before the records are ours
  std::unique_ptr<RecordLayer> records;  // after the handshake
  // During the handshake, while the client's offer stands; and what comes of it.
  std::unique_ptr<HandshakeTranscript> transcript;
  std::unique_ptr<Reauth> reauthentication;
  size_t most_per_record = kMaxRecordPlaintext;  // less for a client that has asked for it
  Negotiated negotiated;

  RecordInput input;
  base::ByteSpan replayed;      // a record of tickets that the SSL is to see as well
  std::vector<uint8_t> opened;  // plaintext that did not fit where it was wanted
  size_t opened_at = 0;
  std::vector<uint8_t> unsent;  // of earlier turns; before the scratch's
  size_t unsent_at = 0;
  size_t scratch_sent = 0;

  Phase phase = Phase::kHandshake;
  WriteEnd write_end = WriteEnd::kOpen;
  ReadEnd read_end = ReadEnd::kOpen;

  std::string dialled;        // client: the destination, until the handshake is done
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
