// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_engine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/strings.h"
#include "proxy/tls/tls_engine_impl.h"
#include "proxy/tls/tls_failure.h"

namespace postern::tls {
namespace {

constexpr size_t kInputBytes = 64U << 10U;
constexpr size_t kMostPerRecord = 16U << 10U;

}  // namespace

EngineScratch::EngineScratch() : input_(kInputBytes) {
  output_.reserve(kOutputHighWater + 2 * kMostPerRecord);
}
EngineScratch::~EngineScratch() = default;

TlsEngine::TlsEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsEngine::~TlsEngine() = default;

absl::StatusOr<std::unique_ptr<TlsEngine>> TlsEngine::CreateServer(
    std::shared_ptr<const TlsContext> context, EngineScratch& scratch, std::string_view listener) {
  auto made = CreateClient(std::move(context), scratch, {});  // the context knows the role
  if (made.ok()) {
    (*made)->impl_->listener = listener;
  }
  return made;
}

absl::StatusOr<std::unique_ptr<TlsEngine>> TlsEngine::CreateClient(
    std::shared_ptr<const TlsContext> context, EngineScratch& scratch,
    std::vector<x509::SpiffeIdPattern> expected, std::string_view destination) {
  auto impl = std::make_unique<Impl>(std::move(context), scratch, std::move(expected));
  const absl::Status opened = impl->Open();
  if (!opened.ok()) {
    return opened;
  }
  impl->OfferSession(destination);
  return std::unique_ptr<TlsEngine>(new TlsEngine(std::move(impl)));
}

void TlsEngine::Feed(base::ByteSpan bytes) {
  if (!impl_->fed.empty()) {
    impl_->KeepInput();
  }
  impl_->fed = bytes;
}

EngineResult TlsEngine::Handshake() {
  if (impl_->phase == Impl::Phase::kOpen) {
    return {EngineOutcome::kDone, 0};
  }
  if (impl_->phase == Impl::Phase::kFailed) {
    return {EngineOutcome::kFailed, 0};
  }
  const SslCallResult call = impl_->ShakeHands();
  if (call.rc == 1) {
    impl_->phase = Impl::Phase::kOpen;
    impl_->ForgetKeyShares();
    return {impl_->RestoreFacts() ? EngineOutcome::kDone : EngineOutcome::kFailed, 0};
  }
  return {impl_->Judge(call), 0};
}

EngineResult TlsEngine::Read(base::MutableByteSpan out) {
  if (impl_->phase != Impl::Phase::kOpen) {
    const bool failed = impl_->phase == Impl::Phase::kFailed;
    return {failed ? EngineOutcome::kFailed : EngineOutcome::kWantRead, 0};
  }
  size_t total = 0;
  while (total < out.size()) {
    // Without input a call finds nothing, at half the price of one that finds something.
    if (!HasBufferedInput() && impl_->read_end == Impl::ReadEnd::kOpen) {
      return {total > 0 ? EngineOutcome::kDone : EngineOutcome::kWantRead, total};
    }
    size_t got = 0;
    const base::MutableByteSpan room = out.subspan(total);
    const SslCallResult call = SslCall(impl_->ssl.get(), [&](SSL* ssl) {
      return SSL_read_ex(ssl, room.data(), room.size(), &got);
    });
    total += got;
    if (call.rc != 1) {
      const EngineOutcome outcome = impl_->Judge(call);
      if (outcome == EngineOutcome::kEnd) {
        impl_->read_end = Impl::ReadEnd::kSeen;
      }
      if (total == 0) {
        return {outcome, 0};
      }
      break;  // what ended it is said by the next call
    }
  }
  return {EngineOutcome::kDone, total};
}

EngineResult TlsEngine::Write(base::ByteSpan in) {
  if (impl_->phase != Impl::Phase::kOpen || impl_->write_end != Impl::WriteEnd::kOpen) {
    return {EngineOutcome::kFailed, 0};
  }
  impl_->GiveTicket();
  size_t total = 0;
  while (total < in.size()) {
    if (OutputBytes() >= kOutputHighWater) {
      return {total > 0 ? EngineOutcome::kDone : EngineOutcome::kWantWrite, total};
    }
    size_t taken = 0;
    const base::ByteSpan piece = in.subspan(total, std::min(in.size() - total, kMostPerRecord));
    const SslCallResult call = SslCall(impl_->ssl.get(), [&](SSL* ssl) {
      return SSL_write_ex(ssl, piece.data(), piece.size(), &taken);
    });
    total += taken;
    if (call.rc != 1) {
      const EngineOutcome outcome = impl_->Judge(call);
      return {total > 0 ? EngineOutcome::kDone : outcome, total};
    }
  }
  return {EngineOutcome::kDone, total};
}

void TlsEngine::CloseWrite() {
  // Once only: a second SSL_shutdown would read, and take application data for an error.
  if (impl_->phase != Impl::Phase::kOpen || impl_->write_end != Impl::WriteEnd::kOpen) {
    return;
  }
  impl_->write_end = Impl::WriteEnd::kClosed;
  SslCall(impl_->ssl.get(), [](SSL* ssl) { return SSL_shutdown(ssl); });
}

void TlsEngine::SendAlert(int description) {
  if (impl_->phase == Impl::Phase::kOpen && impl_->write_end == Impl::WriteEnd::kOpen) {
    impl_->AlertPeer(description);
  }
}

base::ByteSpan TlsEngine::Output() {
  if (impl_->Unsent() > 0) {
    return base::ByteSpan(impl_->unsent).subspan(impl_->unsent_at);
  }
  if (impl_->ScratchOutput() > 0) {
    return base::ByteSpan(impl_->scratch.output()).subspan(impl_->scratch_sent);
  }
  return {};
}

void TlsEngine::Sent(size_t sent) {
  if (impl_->Unsent() > 0) {
    impl_->unsent_at += std::min(sent, impl_->Unsent());
  } else {
    impl_->scratch_sent += std::min(sent, impl_->ScratchOutput());
  }
}

bool TlsEngine::HasOutput() const {
  return OutputBytes() > 0;
}

size_t TlsEngine::OutputBytes() const {
  return impl_->Unsent() + impl_->ScratchOutput();
}

void TlsEngine::EndTurn() {
  impl_->KeepInput();
  impl_->KeepOutput();
  impl_->FreeSpareBuffers();
}

bool TlsEngine::HasBufferedInput() const {
  return impl_->phase == Impl::Phase::kOpen &&
         (!impl_->fed.empty() || impl_->KeptInput() > 0 || SSL_pending(impl_->ssl.get()) > 0);
}

const std::optional<x509::VerifiedPeer>& TlsEngine::peer() const {
  return impl_->peer;
}

TicketUse TlsEngine::ticket_use() const {
  return impl_->ticket_use;
}

const base::Failure& TlsEngine::failure() const {
  return impl_->failure;
}

TlsFacts TlsEngine::facts() const {
  SSL* ssl = impl_->ssl.get();
  TlsFacts facts;
  if (impl_->phase != Impl::Phase::kOpen) {
    return facts;
  }
  facts.version = SSL_get_version(ssl);
  facts.cipher = SSL_get_cipher_name(ssl);
  const char* group = SSL_group_to_name(ssl, static_cast<int>(SSL_get_negotiated_group(ssl)));
  facts.group = group == nullptr ? "" : group;
  const unsigned char* alpn = nullptr;
  unsigned int alpn_length = 0;
  SSL_get0_alpn_selected(ssl, &alpn, &alpn_length);
  if (alpn != nullptr) {
    facts.alpn.assign(reinterpret_cast<const char*>(alpn), alpn_length);
  }
  facts.resumed = SSL_session_reused(ssl) != 0;
  return facts;
}

}  // namespace postern::tls
