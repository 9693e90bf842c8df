// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_engine_impl.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/base/strings.h"
#include "proxy/tls/tls_failure.h"

namespace postern::tls {
namespace {

constexpr int kAlertUnexpectedMessage = 10;
constexpr int kAlertUserCanceled = 90;
constexpr uint8_t kFinished = 20;
constexpr uint8_t kKeyUpdate = 24;
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
  if (write == 0) {
    if (content_type == SSL3_RT_INNER_CONTENT_TYPE && *first != kApplicationData) {
      EngineOf(ssl)->OnReadRecord();
    }
  } else if (content_type == SSL3_RT_HEADER) {
    EngineOf(ssl)->OnWrittenRecord(*first);
  } else if (content_type == SSL3_RT_HANDSHAKE) {
    EngineOf(ssl)->OnWrittenHandshakeMessage(*first);
  }
}

void OnKeyLog(const SSL* ssl, const char* line) noexcept {
  TlsEngine::Impl* engine = EngineOf(ssl);
  engine->write_secret.OnKeyLog(line, engine->is_server());
}

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
  if (is_server()) {
    SSL_set_accept_state(ssl.get());
  } else {
    SSL_set_connect_state(ssl.get());
  }
  return absl::OkStatus();
}

size_t TlsEngine::Impl::TakeInput(base::MutableByteSpan buffer) noexcept {
  if (flood == Flood::kSeen) {
    return 0;  // ends the call, so that it can be judged
  }
  if (KeptInput() > 0) {
    const size_t count = std::min(buffer.size(), KeptInput());
    std::memcpy(buffer.data(), kept.data() + kept_at, count);
    kept_at += count;
    return count;
  }
  const size_t count = std::min(buffer.size(), fed.size());
  if (count > 0) {
    std::memcpy(buffer.data(), fed.data(), count);
    fed = fed.subspan(count);
  }
  return count;
}

void TlsEngine::Impl::PutOutput(base::ByteSpan bytes) noexcept {
  if (scratch.user_ != this) {
    if (scratch.user_ != nullptr) {
      ScratchIsTaken();
    }
    scratch.user_ = this;
    scratch_sent = 0;
  }
  scratch.output_.insert(scratch.output_.end(), bytes.begin(), bytes.end());
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

void TlsEngine::Impl::OnReadRecord() {
  buffers = Buffers::kSpare;
  if (phase == Phase::kOpen && !budget.Take(context->impl().options.clock->SinceBoot())) {
    flood = Flood::kSeen;
  }
}

void TlsEngine::Impl::OnWrittenRecord(uint8_t outer_type) {
  if (outer_type == kApplicationData) {
    write_secret.CountRecord();
  }
}

void TlsEngine::Impl::OnWrittenHandshakeMessage(uint8_t type) {
  if (type == kFinished && phase == Phase::kHandshake) {
    SSL_CTX_set_keylog_callback(context->impl().ctx.get(), &OnKeyLog);
  } else if (type == kKeyUpdate) {
    write_secret.Advance(SSL_get_current_cipher(ssl.get()));
  }
}

// Our application secret is derived right behind our Finished, inside the same call. The key log is
// open for that moment alone: OpenSSL 3.0 spends some 6 us on each secret that it formats.
SslCallResult TlsEngine::Impl::ShakeHands() {
  const SslCallResult call = SslCall(ssl.get(), [](SSL* s) { return SSL_do_handshake(s); });
  SSL_CTX_set_keylog_callback(context->impl().ctx.get(), nullptr);
  return call;
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
  if (flood == Flood::kSeen) {
    FailOnFlood();
    return EngineOutcome::kFailed;
  }
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

void TlsEngine::Impl::FailOnFlood() {
  AlertPeer(kAlertUnexpectedMessage);
  phase = Phase::kFailed;
  failure.reason = base::CloseReason::kHandshakeFailed;
  failure.detail = absl::ResourceExhaustedError(
      "the peer sends too many records without application data (KeyUpdate, tickets)");
  failure.peer_id = peer.has_value() ? peer->id.uri() : "";
  failure.alert_sent = alert_sent;
}

void TlsEngine::Impl::AlertPeer(int description) {
  write_end = WriteEnd::kClosed;
  const auto record =
      write_secret.SealAlert(SSL_get_current_cipher(ssl.get()), static_cast<uint8_t>(description));
  if (record.has_value()) {
    PutOutput(*record);
    alert_sent = description;
    failure.alert_sent = description;
  }
}

size_t TlsEngine::Impl::ScratchOutput() const {
  return scratch.user_ == this ? scratch.output_.size() - scratch_sent : 0;
}

void TlsEngine::Impl::KeepInput() {
  if (KeptInput() == 0) {
    kept_at = 0;
    if (fed.empty()) {
      Release(kept);
      return;
    }
    kept.assign(fed.begin(), fed.end());
  } else {
    kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(kept_at));
    kept_at = 0;
    kept.insert(kept.end(), fed.begin(), fed.end());
  }
  fed = {};
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
