// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/engine_reauth.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "proxy/tls/handshake_signature.h"
#include "proxy/tls/tls_engine_impl.h"

namespace postern::tls {
namespace {

constexpr int kAlertCertificateRequired = 116;
// Of messages without certificates.
constexpr size_t kMostRequestBytes = 16U << 10U;
constexpr size_t kMostVerifyBytes = 2U << 10U;
// Answers may wait to be sent behind so much, which is more than data ever makes wait.
constexpr size_t kMostUnsent = 2 * kOutputHighWater;

RecordFault Refuse(int alert, const char* text,
                   absl::StatusCode code = absl::StatusCode::kUnauthenticated) {
  return {static_cast<uint8_t>(alert), code, text, base::CloseReason::kReauthFailed};
}

RecordFault Broken(const char* text) {
  return {SSL_AD_INTERNAL_ERROR, absl::StatusCode::kInternal, text, base::CloseReason::kInternal};
}

// As OpenSSL does in a handshake.
int AlertFor(const x509::ChainError& error) {
  switch (error.x509_error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return SSL_AD_CERTIFICATE_EXPIRED;
    case X509_V_ERR_CERT_REVOKED:
      return SSL_AD_CERTIFICATE_REVOKED;
    case X509_V_ERR_INVALID_PURPOSE:
      return SSL_AD_UNSUPPORTED_CERTIFICATE;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_INVALID_CA:
      return SSL_AD_UNKNOWN_CA;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return SSL_AD_DECRYPT_ERROR;
    default:
      return SSL_AD_BAD_CERTIFICATE;
  }
}

}  // namespace

Reauth::Reauth(TlsEngine::Impl& engine, std::vector<uint8_t> transcript)
    : engine_(engine), transcript_(std::move(transcript)) {}

Reauth::~Reauth() {
  OPENSSL_cleanse(transcript_.data(), transcript_.size());
}

std::optional<size_t> Reauth::MostBytes(uint8_t type) const {
  const auto message = static_cast<HandshakeType>(type);
  if (!engine_.is_server()) {
    return message == HandshakeType::kCertificateRequest ? std::optional(kMostRequestBytes)
                                                         : std::nullopt;
  }
  if (exchange_ == nullptr || message != exchange_->awaited) {
    return std::nullopt;
  }
  switch (message) {
    case HandshakeType::kCertificate:
      return engine_.context->impl().options.max_chain_bytes;
    case HandshakeType::kCertificateVerify:
      return kMostVerifyBytes;
    default:
      return engine_.records->HashBytes();
  }
}

bool Reauth::IsInside() const {
  return exchange_ != nullptr && exchange_->awaited != HandshakeType::kCertificate;
}

std::optional<RecordFault> Reauth::Take(base::ByteSpan message) {
  if (!engine_.is_server()) {
    return Answer(message);
  }
  std::optional<RecordFault> fault = TakeAnswer(message);
  if (fault.has_value()) {
    ++engine_.scratch.reauths().failed;
  }
  return fault;
}

// ---------------------------------------------------------------- server

bool Reauth::Ask() {
  if (exchange_ != nullptr || !engine_.GiveTicket()) {
    return false;
  }
  auto exchange = std::make_unique<Exchange>(transcript_);
  if (RAND_bytes(exchange->context.data(), static_cast<int>(exchange->context.size())) != 1) {
    return false;
  }
  const std::vector<uint8_t> request = MakeCertificateRequest(exchange->context);
  exchange->hash.Update(request);
  RecordBuffer& out = engine_.Output();
  if (!engine_.records->UpdateKeysIfDue(out) ||
      !engine_.records->SealHandshake(request, engine_.most_per_record, out)) {
    engine_.FailInside("a record can not be sealed");
    return false;
  }
  exchange_ = std::move(exchange);
  return true;
}

std::optional<RecordFault> Reauth::TakeAnswer(base::ByteSpan message) {
  switch (exchange_->awaited) {
    case HandshakeType::kCertificate:
      return OnCertificate(message);
    case HandshakeType::kCertificateVerify:
      return OnVerify(message);
    default:
      return OnFinished(message);
  }
}

std::optional<RecordFault> Reauth::OnCertificate(base::ByteSpan message) {
  Parsed<Certificate> parsed = ParseCertificate(message);
  if (!parsed.message.has_value()) {
    return parsed.fault;
  }
  const Certificate& shown = *parsed.message;
  if (!std::equal(shown.context.begin(), shown.context.end(), exchange_->context.begin(),
                  exchange_->context.end())) {
    return Refuse(SSL_AD_ILLEGAL_PARAMETER, "a Certificate for another request than ours");
  }
  if (shown.chain.empty()) {
    return Refuse(kAlertCertificateRequired, "the client showed no certificate when asked again");
  }
  exchange_->hash.Update(message);
  exchange_->leaf = x509::ShareX509(shown.chain.front().get());
  exchange_->awaited = HandshakeType::kCertificateVerify;
  return Judge(shown);
}

// What is known already, or is over by now (the answer may have waited for us to read it), is no
// news: it proves that the client has the key, and nothing for longer.
std::optional<RecordFault> Reauth::Judge(const Certificate& shown) {
  const x509::VerifiedPeer& known = *engine_.peer;
  if (x509::Sha256OfCertificate(exchange_->leaf.get()) == known.leaf_sha256) {
    return std::nullopt;
  }
  const x509::X509StackPtr presented = x509::ShareX509Stack(shown.chain);
  if (presented == nullptr) {
    return Broken("no memory for a chain");
  }
  x509::ChainVerdict verdict =
      engine_.Newest().impl().VerifyChain(exchange_->leaf.get(), presented.get());
  if (!verdict.peer.has_value()) {
    if (verdict.error.reason == base::CloseReason::kPeerExpired) {
      return std::nullopt;
    }
    engine_.chain_error = std::move(verdict.error);
    return Refuse(AlertFor(*engine_.chain_error), "the renewed certificate is refused");
  }
  if (verdict.peer->id.uri() != known.id.uri()) {
    engine_.chain_error =
        x509::ChainError{base::CloseReason::kReauthFailed, X509_V_ERR_CERT_REJECTED, 0,
                         base::StrCat("the client was ", known.id.uri(), " and shows ",
                                      verdict.peer->id.uri(), " now"),
                         known.id.uri()};
    return Refuse(SSL_AD_BAD_CERTIFICATE, "another identity");
  }
  if (verdict.peer->not_after > known.not_after) {
    exchange_->news = std::move(verdict.peer);
  }
  return std::nullopt;
}

std::optional<RecordFault> Reauth::OnVerify(base::ByteSpan message) {
  const Parsed<CertificateVerify> parsed = ParseCertificateVerify(message);
  if (!parsed.message.has_value()) {
    return parsed.fault;
  }
  EVP_PKEY* const key = X509_get0_pubkey(exchange_->leaf.get());
  if (!SchemeFits(key, parsed.message->scheme)) {
    return Refuse(SSL_AD_ILLEGAL_PARAMETER, "a signature scheme that is not for the client's key");
  }
  if (!VerifyClient(key, parsed.message->scheme, exchange_->hash.Peek().bytes(),
                    parsed.message->signature)) {
    return Refuse(SSL_AD_DECRYPT_ERROR, "the signature of the CertificateVerify is wrong");
  }
  exchange_->hash.Update(message);
  exchange_->awaited = HandshakeType::kFinished;
  return std::nullopt;
}

std::optional<RecordFault> Reauth::OnFinished(base::ByteSpan message) {
  std::array<uint8_t, RunningHash::kSha384Bytes> room{};
  const base::MutableByteSpan mac(room.data(), engine_.records->HashBytes());
  if (!engine_.records->ClientFinishedMac(exchange_->hash.Peek().bytes(), mac)) {
    return Broken("OpenSSL makes no Finished");
  }
  const base::ByteSpan shown = message.subspan(kHandshakeHeaderBytes);
  const bool same =
      shown.size() == mac.size() && CRYPTO_memcmp(shown.data(), mac.data(), mac.size()) == 0;
  OPENSSL_cleanse(room.data(), room.size());
  if (!same) {
    return Refuse(SSL_AD_DECRYPT_ERROR, "the client's Finished is wrong");
  }
  std::optional<x509::VerifiedPeer> news = std::move(exchange_->news);
  exchange_.reset();
  if (news.has_value()) {
    engine_.peer = std::move(news);
    engine_.context = engine_.SharedNewest();  // the former one's key need not live on
    ++engine_.scratch.reauths().renewed;
  } else {
    ++engine_.scratch.reauths().unchanged;
  }
  return std::nullopt;
}

// ---------------------------------------------------------------- client

std::optional<RecordFault> Reauth::Answer(base::ByteSpan message) {
  if (!budget_.Take(engine_.context->impl().options.clock->SinceBoot()) ||
      engine_.Unsent() + engine_.ScratchOutput() > kMostUnsent) {
    return Refuse(SSL_AD_UNEXPECTED_MESSAGE, "the server asks for certificates too often",
                  absl::StatusCode::kResourceExhausted);
  }
  const Parsed<CertificateRequest> parsed = ParseCertificateRequest(message);
  if (!parsed.message.has_value()) {
    return parsed.fault;
  }
  if (engine_.write_end == TlsEngine::Impl::WriteEnd::kClosed) {
    return std::nullopt;  // behind our close_notify nothing can be said
  }
  engine_.context = engine_.SharedNewest();
  RunningHash hash = RunningHash::Restore(transcript_);
  hash.Update(message);
  RecordBuffer& out = engine_.Output();
  if (!engine_.records->UpdateKeysIfDue(out)) {
    return Broken("a record can not be sealed");
  }
  const std::optional<std::vector<uint8_t>> answer = MakeAnswer(*parsed.message, hash);
  if (!answer.has_value() ||
      !engine_.records->SealHandshake(*answer, engine_.most_per_record, out)) {
    return Broken("the answer to a CertificateRequest can not be made");
  }
  ++engine_.scratch.reauths().answered;
  return std::nullopt;
}

// Certificate, CertificateVerify and Finished; without a scheme that both know, a Certificate that
// shows none (RFC 8446 section 4.4.2).
std::optional<std::vector<uint8_t>> Reauth::MakeAnswer(const CertificateRequest& request,
                                                       RunningHash& hash) const {
  const x509::Svid& svid = *engine_.context->impl().svid;
  const uint16_t scheme = ChooseScheme(svid.key(), request.schemes);
  std::vector<uint8_t> answer = scheme == 0 ? MakeCertificate(request.context, {})
                                            : MakeCertificate(request.context, svid.chain());
  hash.Update(answer);
  const auto append = [&](const std::vector<uint8_t>& message) {
    hash.Update(message);
    answer.insert(answer.end(), message.begin(), message.end());
  };
  if (scheme != 0) {
    const std::optional<std::vector<uint8_t>> signature =
        SignAsClient(svid.key(), scheme, hash.Peek().bytes());
    if (!signature.has_value()) {
      return std::nullopt;
    }
    append(MakeCertificateVerify(scheme, *signature));
  }
  std::array<uint8_t, RunningHash::kSha384Bytes> room{};
  const base::MutableByteSpan mac(room.data(), engine_.records->HashBytes());
  if (!engine_.records->ClientFinishedMac(hash.Peek().bytes(), mac)) {
    return std::nullopt;
  }
  append(MakeFinished(mac));
  return answer;
}

}  // namespace postern::tls
