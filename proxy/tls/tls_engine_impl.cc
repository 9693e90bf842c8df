// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_engine_impl.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/base/strings.h"
#include "proxy/tls/engine_reauth.h"
#include "proxy/tls/tls_failure.h"

namespace postern::tls {
namespace {

constexpr int kAlertUserCanceled = 90;
constexpr uint8_t kApplicationData = 23;

// close_notify ends a direction and user_canceled announces it; each other one is fatal in TLS 1.3
// (RFC 8446 section 6).
bool IsFatal(int description) {
  return description != SSL_AD_CLOSE_NOTIFY && description != kAlertUserCanceled;
}

// An engine that found another one's bytes in the scratch would send them to its own peer.
[[noreturn]] void ScratchIsTaken() {
  std::fputs("postern: a TLS engine began its turn before another one's EndTurn\n", stderr);
  std::abort();
}

void Release(std::vector<uint8_t>& buffer) {
  std::vector<uint8_t>().swap(buffer);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Of a key log's line, "<label> <client random> <secret>" in hexadecimal. What is no secret leaves
// `secret` empty.
void ReadSecret(std::string_view line, TrafficSecret& secret) {
  const std::string_view hex = line.substr(line.rfind(' ') + 1);
  std::array<uint8_t, TrafficSecret::kMaxBytes> bytes{};
  const size_t size = hex.size() / 2;
  secret.Wipe();
  if (hex.size() % 2 != 0 || size > bytes.size()) {
    return;
  }
  bool digits = true;
  for (size_t i = 0; i < size; ++i) {
    const int high = HexDigit(hex[2 * i]);
    const int low = HexDigit(hex[2 * i + 1]);
    digits = digits && high >= 0 && low >= 0;
    bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (digits) {
    secret.Set({bytes.data(), size});
  }
  OPENSSL_cleanse(bytes.data(), bytes.size());
}

}  // namespace

int OnVerifyPeer(X509_STORE_CTX* store_ctx, void* /*arg*/) noexcept {
  const auto* ssl = static_cast<const SSL*>(
      X509_STORE_CTX_get_ex_data(store_ctx, SSL_get_ex_data_X509_STORE_CTX_idx()));
  return EngineOf(ssl)->VerifyPeer(store_ctx);
}

void OnInfo(const SSL* ssl, int where, int value) noexcept {
  if ((where & SSL_CB_ALERT) != 0) {
    EngineOf(ssl)->OnAlert(where, value & 0xFF);
  }
}

void OnMessage(int write, int /*version*/, int content_type, const void* bytes, size_t length,
               SSL* ssl, void* /*arg*/) noexcept {
  const auto* first = static_cast<const uint8_t*>(bytes);
  if (length == 0) {
    return;
  }
  if (content_type == SSL3_RT_HANDSHAKE) {
    EngineOf(ssl)->OnHandshakeMessage({first, length});
  } else if (content_type == SSL3_RT_HEADER && write != 0) {
    EngineOf(ssl)->OnWrittenRecord(*first);
  }
}

void OnKeyLog(const SSL* ssl, const char* line) noexcept {
  EngineOf(ssl)->OnKeyLog(line);
}

TlsEngine::Impl::Impl(std::shared_ptr<const TlsContext> with, EngineScratch& on,
                      std::vector<x509::SpiffeIdPattern> who)
    : context(std::move(with)), scratch(on), expected(std::move(who)) {}

TlsEngine::Impl::~Impl() {
  ForgetOffer();  // a handshake that came to no end: the next one does without
  if (scratch.user_ == this) {
    scratch.output_.clear();
    scratch.user_ = nullptr;
  }
}

absl::Status TlsEngine::Impl::Open() {
  ERR_clear_error();
  ssl.reset(SSL_new(context->impl().ctx.get()));
  x509::BioPtr bio = NewEngineBio(*this);
  if (ssl == nullptr || bio == nullptr || SSL_set_app_data(ssl.get(), this) != 1) {
    ERR_clear_error();
    return absl::ResourceExhaustedError("OpenSSL: no memory for another connection");
  }
  BIO* both = bio.release();
  SSL_set_bio(ssl.get(), both, both);  // takes the one reference
  if (context->impl().reauthenticates()) {
    transcript = std::make_unique<HandshakeTranscript>();
  }
  if (is_server()) {
    SSL_set_accept_state(ssl.get());
  } else {
    SSL_set_connect_state(ssl.get());
  }
  return absl::OkStatus();
}

size_t TlsEngine::Impl::TakeInput(base::MutableByteSpan buffer) noexcept {
  if (phase == Phase::kHandshake) {
    return input.Take(buffer);
  }
  const size_t count = std::min(buffer.size(), replayed.size());
  std::copy_n(replayed.begin(), count, buffer.begin());
  replayed = replayed.subspan(count);
  return count;
}

void TlsEngine::Impl::PutOutput(base::ByteSpan bytes) noexcept {
  if (IsSslMuted()) {
    return;
  }
  RecordBuffer& output = Output();
  const size_t at = output.size();  // insert would construct byte after byte
  output.resize(at + bytes.size());
  std::copy(bytes.begin(), bytes.end(), output.data() + at);
}

RecordBuffer& TlsEngine::Impl::Output() {
  if (scratch.user_ != this) {
    if (scratch.user_ != nullptr) {
      ScratchIsTaken();
    }
    scratch.user_ = this;
    scratch_sent = 0;
  }
  return scratch.output_;
}

int TlsEngine::Impl::VerifyPeer(X509_STORE_CTX* store_ctx) {
  x509::ChainVerdict verdict = context->impl().VerifyChain(
      X509_STORE_CTX_get0_cert(store_ctx), X509_STORE_CTX_get0_untrusted(store_ctx));
  if (verdict.peer.has_value() && !IsExpected(verdict.peer->id)) {
    const std::string& id = verdict.peer->id.uri();
    verdict.error = {
        base::CloseReason::kIdentityMismatch, X509_V_ERR_CERT_REJECTED, 0,
        base::StrCat(
            "the peer is ", id, ", expected was ", expected[0].ToString(),
            expected.size() > 1 ? base::StrCat(" or one of ", expected.size() - 1, " more") : ""),
        id};
    verdict.peer.reset();
  }
  if (std::optional<std::string> mismatch =
          verdict.peer.has_value() ? PinMismatch(*verdict.peer) : std::nullopt) {
    verdict.error = {base::CloseReason::kPinMismatch, X509_V_ERR_CERT_REJECTED, 0,
                     *std::move(mismatch), verdict.peer->id.uri()};
    verdict.peer.reset();
  }
  if (verdict.peer.has_value()) {
    peer = std::move(verdict.peer);
    context->impl().peer_certificates.Share(store_ctx, peer->leaf_sha256);
    X509_STORE_CTX_set_error(store_ctx, X509_V_OK);
    return 1;
  }
  const int error = verdict.error.x509_error;
  X509_STORE_CTX_set_error(store_ctx,
                           error == X509_V_OK ? X509_V_ERR_APPLICATION_VERIFICATION : error);
  X509_STORE_CTX_set_error_depth(store_ctx, std::max(verdict.error.depth, 0));
  chain_error = std::move(verdict.error);
  return 0;
}

void TlsEngine::Impl::OnAlert(int where, int description) {
  if (IsFatal(description)) {
    ((where & SSL_CB_READ) != 0 ? alert_received : alert_sent) = description;
  }
}

void TlsEngine::Impl::OnWrittenRecord(uint8_t outer_type) {
  if (outer_type != kApplicationData || IsSslMuted()) {
    return;
  }
  if (records != nullptr) {
    records->CountWritten();
  } else if (!write_secret.bytes().empty()) {
    ++written_by_ssl;
  }
}

// The application secrets are derived behind a Finished, inside the same call: a client's both
// behind the server's and its own, a server's own behind its own and the client's behind the
// client's. The key log is open for those moments alone: OpenSSL 3.0 spends some 6 us on each
// secret that it formats.
void TlsEngine::Impl::OnHandshakeMessage(base::ByteSpan message) {
  if (phase != Phase::kHandshake) {
    return;  // a ticket
  }
  const auto type = static_cast<HandshakeType>(message[0]);
  if (transcript != nullptr) {
    transcript->Add(message);
    if (type == HandshakeType::kClientHello && !transcript->client_offers()) {
      transcript.reset();
    }
  }
  if (type == HandshakeType::kFinished) {
    SSL_CTX_set_keylog_callback(context->impl().ctx.get(), &postern::tls::OnKeyLog);
  }
}

void TlsEngine::Impl::OnKeyLog(std::string_view line) {
  const std::string_view label = line.substr(0, line.find(' '));
  const bool of_server = label == "SERVER_TRAFFIC_SECRET_0";
  if (of_server || label == "CLIENT_TRAFFIC_SECRET_0") {
    ReadSecret(line, of_server == is_server() ? write_secret : read_secret);
  }
}

void TlsEngine::Impl::OfferShares(std::string_view to) {
  if (!is_server() && !to.empty()) {
    dialled = to;
    context->impl().key_shares.Offer(ssl.get(), dialled);
  }
}

void TlsEngine::Impl::LearnShares() {
  if (!dialled.empty()) {
    context->impl().key_shares.Learn(dialled,
                                     static_cast<int>(SSL_get_negotiated_group(ssl.get())));
    std::string().swap(dialled);
  }
}

SslCallResult TlsEngine::Impl::ShakeHands() {
  const SslCallResult call = SslCall(ssl.get(), [](SSL* s) { return SSL_do_handshake(s); });
  SSL_CTX_set_keylog_callback(context->impl().ctx.get(), nullptr);
  return call;
}

// OpenSSL reads a record's header and then the record, no byte more, and derives the peer's
// application keys behind the last record of the handshake: so it has read none under them.
bool TlsEngine::Impl::TakeOverRecords() {
  NoteNegotiated();
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl.get());
  if (SSL_version(ssl.get()) == TLS1_3_VERSION && SSL_has_pending(ssl.get()) == 0 &&
      cipher != nullptr) {
    records =
        RecordLayer::Create({is_server() ? RecordLayer::Role::kServer : RecordLayer::Role::kClient,
                             SSL_CIPHER_get_protocol_id(cipher), context->impl().options.clock},
                            read_secret.bytes(), write_secret.bytes());
  }
  read_secret.Wipe();
  write_secret.Wipe();
  if (records == nullptr) {
    FailInside("the records can not be taken over from OpenSSL");
    return false;
  }
  for (; written_by_ssl > 0; --written_by_ssl) {
    records->CountWritten();
  }
  if (transcript != nullptr && transcript->complete()) {
    reauthentication = std::make_unique<Reauth>(*this, transcript->Save());
    records->SetAuth(reauthentication.get());
  }
  transcript.reset();
  return true;
}

void TlsEngine::Impl::NoteNegotiated() {
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl.get());
  negotiated.cipher = SSL_CIPHER_get_name(cipher);
  const char* group =
      SSL_group_to_name(ssl.get(), static_cast<int>(SSL_get_negotiated_group(ssl.get())));
  negotiated.group = group == nullptr ? "" : group;
  const unsigned char* alpn = nullptr;
  unsigned int alpn_length = 0;
  SSL_get0_alpn_selected(ssl.get(), &alpn, &alpn_length);
  negotiated.alpn = base::AsText({alpn, alpn_length});
  negotiated.resumed = SSL_session_reused(ssl.get()) != 0;
  // RFC 6066 section 4: 2^9 for 1 to 2^12 for 4, 0 if nothing was agreed.
  const unsigned mode = SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl.get()));
  if (mode >= TLSEXT_max_fragment_length_512 && mode <= TLSEXT_max_fragment_length_4096) {
    most_per_record = size_t{1} << (8 + mode);
  }
}

const std::shared_ptr<const TlsContext>& TlsEngine::Impl::SharedNewest() const {
  const auto& newest = is_server() ? scratch.newest_server_ : scratch.newest_client_;
  return newest != nullptr ? newest : context;
}

// OpenSSL keeps both sides' key shares until the connection ends and never looks at them again: up
// to 14 KB with ML-KEM, and an ephemeral private key that should be gone. Setting a key's type
// wipes and frees what it held.
void TlsEngine::Impl::ForgetKeyShares() {
  const auto forget = [](EVP_PKEY* share) {
    const x509::PkeyPtr held(share);
    EVP_PKEY_set_type(held.get(), EVP_PKEY_EC);
  };
  EVP_PKEY* share = nullptr;
  if (SSL_get_peer_tmp_key(ssl.get(), &share) == 1) {
    forget(share);
  }
  if (SSL_get_tmp_key(ssl.get(), &share) == 1) {
    forget(share);
  }
  ERR_clear_error();
}

EngineOutcome TlsEngine::Impl::Judge(const SslCallResult& call) {
  switch (call.error) {
    case SSL_ERROR_WANT_READ:
      return EngineOutcome::kWantRead;
    case SSL_ERROR_ZERO_RETURN:
      return EngineOutcome::kEnd;
    default:
      Fail(call);
      return EngineOutcome::kFailed;
  }
}

void TlsEngine::Impl::Fail(const SslCallResult& call) {
  phase = Phase::kFailed;
  ForgetOffer();
  const std::string peer_id = peer.has_value() ? peer->id.uri() : "";
  failure = ExplainFailure({call, chain_error, peer_id, alert_sent, alert_received});
}

void TlsEngine::Impl::FailInside(const char* what) {
  phase = Phase::kFailed;
  failure.reason = base::CloseReason::kInternal;
  failure.detail = absl::InternalError(what);
  failure.peer_id = peer.has_value() ? peer->id.uri() : "";
}

void TlsEngine::Impl::FailOnFault(const RecordFault& fault) {
  AlertPeer(fault.alert);
  phase = Phase::kFailed;
  failure.reason = fault.reason;
  failure.detail = absl::Status(fault.code, fault.text);
  failure.peer_id = peer.has_value() ? peer->id.uri() : "";
  if (chain_error.has_value()) {  // of a certificate that was shown inside the connection
    failure.x509_error = chain_error->x509_error;
    failure.x509_depth = chain_error->depth;
    failure.detail =
        absl::Status(fault.code, base::ToAbsl(base::StrCat(fault.text, ": ", chain_error->detail)));
  }
}

void TlsEngine::Impl::FailOnAlert(int description) {
  alert_received = description;
  Fail({});
}

void TlsEngine::Impl::AlertPeer(int description) {
  if (records == nullptr || write_end == WriteEnd::kClosed) {
    return;
  }
  write_end = WriteEnd::kClosed;
  if (is_server()) {
    ssl.reset();  // its ticket could only come behind the alert
  }
  const bool sealed = records->SealAlert(static_cast<uint8_t>(description), Output());
  if (sealed && IsFatal(description)) {
    alert_sent = description;
    failure.alert_sent = description;
  }
}

EngineResult TlsEngine::Impl::ReadSome(base::MutableByteSpan room, bool aside) {
  if (opened_at < opened.size()) {
    return {EngineOutcome::kDone, TakeOpened(room)};
  }
  if (read_end == ReadEnd::kSeen) {
    return {EngineOutcome::kEnd, 0};
  }
  const base::ByteSpan record = input.Next();
  const size_t wanted = RecordCipher::RoomFor(record);
  if (record.empty() || (wanted > room.size() && !aside)) {
    return {EngineOutcome::kWantRead, 0};
  }
  if (wanted <= room.size()) {
    return OpenRecord(record, room);
  }
  opened.resize(wanted);
  const EngineResult result = OpenRecord(record, opened);
  opened.resize(result.bytes);
  return {result.outcome, TakeOpened(room)};
}

size_t TlsEngine::Impl::TakeOpened(base::MutableByteSpan room) {
  const size_t count = std::min(room.size(), opened.size() - opened_at);
  std::copy_n(opened.data() + opened_at, count, room.begin());
  opened_at += count;
  if (opened_at == opened.size()) {
    Release(opened);
    opened_at = 0;
  }
  return count;
}

EngineResult TlsEngine::Impl::OpenRecord(base::ByteSpan record, base::MutableByteSpan room) {
  const RecordLayer::Step step = records->Open(record, room);
  EngineResult result{EngineOutcome::kDone, step.bytes};
  switch (step.kind) {
    case RecordLayer::Kind::kData:
    case RecordLayer::Kind::kControl:
      break;
    case RecordLayer::Kind::kTickets:
      if (ssl != nullptr && !TakeTickets(record)) {
        result.outcome = EngineOutcome::kFailed;
      }
      break;
    case RecordLayer::Kind::kEnd:
      read_end = ReadEnd::kSeen;
      result.outcome = EngineOutcome::kEnd;
      break;
    case RecordLayer::Kind::kAlert:
      FailOnAlert(step.alert);
      result.outcome = EngineOutcome::kFailed;
      break;
    case RecordLayer::Kind::kFault:
      FailOnFault(step.fault);
      result.outcome = EngineOutcome::kFailed;
      break;
  }
  // A client's SSL waits for the first record alone: our servers send their ticket in front of all.
  if (!is_server()) {
    ssl.reset();
  }
  input.Pop(record.size());
  return result;
}

size_t TlsEngine::Impl::ScratchOutput() const {
  return scratch.user_ == this ? scratch.output_.size() - scratch_sent : 0;
}

void TlsEngine::Impl::KeepOutput() {
  if (Unsent() == 0) {
    Release(unsent);
    unsent_at = 0;
  }
  if (scratch.user_ != this) {
    return;
  }
  const base::ByteSpan rest = base::ByteSpan(scratch.output_).subspan(scratch_sent);
  if (!rest.empty()) {
    unsent.erase(unsent.begin(), unsent.begin() + static_cast<std::ptrdiff_t>(unsent_at));
    unsent_at = 0;
    unsent.insert(unsent.end(), rest.begin(), rest.end());
  }
  scratch.output_.clear();
  scratch_sent = 0;
  scratch.user_ = nullptr;
}

}  // namespace postern::tls
