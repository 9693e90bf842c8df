// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_engine.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "proxy/tls/engine_reauth.h"
#include "proxy/tls/tls_engine_impl.h"
#include "proxy/tls/tls_failure.h"

namespace postern::tls {
namespace {

constexpr size_t kInputBytes = 64U << 10U;

}  // namespace

EngineScratch::EngineScratch() : input_(kInputBytes) {
  output_.reserve(kOutputHighWater + 2 * kMaxRecordCiphertext);
}
EngineScratch::~EngineScratch() = default;

void EngineScratch::Publish(std::shared_ptr<const TlsContext> client,
                            std::shared_ptr<const TlsContext> server) {
  newest_client_ = std::move(client);
  newest_server_ = std::move(server);
}

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
    std::vector<x509::SpiffeIdPattern> expected, std::string_view destination,
    std::shared_ptr<const x509::PeerPins> pins) {
  auto impl = std::make_unique<Impl>(std::move(context), scratch, std::move(expected));
  impl->pins = std::move(pins);
  const absl::Status opened = impl->Open();
  if (!opened.ok()) {
    return opened;
  }
  impl->OfferShares(destination);
  impl->OfferSession(destination);
  return std::unique_ptr<TlsEngine>(new TlsEngine(std::move(impl)));
}

void TlsEngine::Feed(base::ByteSpan bytes) {
  impl_->input.Feed(bytes);
}

EngineResult TlsEngine::Handshake() {
  if (impl_->phase == Impl::Phase::kOpen) {
    return {EngineOutcome::kDone, 0};
  }
  if (impl_->phase == Impl::Phase::kFailed) {
    return {EngineOutcome::kFailed, 0};
  }
  const SslCallResult call = impl_->ShakeHands();
  if (call.rc != 1) {
    return {impl_->Judge(call), 0};
  }
  impl_->phase = Impl::Phase::kOpen;
  if (!impl_->TakeOverRecords() || !impl_->RestoreFacts()) {
    return {EngineOutcome::kFailed, 0};
  }
  impl_->LearnShares();
  if (impl_->AwaitsTicket()) {
    impl_->ForgetKeyShares();
  } else {
    impl_->ssl.reset();
  }
  return {EngineOutcome::kDone, 0};
}

EngineResult TlsEngine::Read(base::MutableByteSpan out) {
  if (impl_->phase != Impl::Phase::kOpen) {
    const bool failed = impl_->phase == Impl::Phase::kFailed;
    return {failed ? EngineOutcome::kFailed : EngineOutcome::kWantRead, 0};
  }
  size_t total = 0;
  while (total < out.size()) {
    const EngineResult some = impl_->ReadSome(out.subspan(total), total == 0);
    total += some.bytes;
    if (some.outcome != EngineOutcome::kDone) {
      // What ended it is said by the next call, if this one has something to give.
      return {total > 0 ? EngineOutcome::kDone : some.outcome, total};
    }
  }
  return {EngineOutcome::kDone, total};
}

EngineResult TlsEngine::Write(base::ByteSpan in) {
  if (impl_->phase != Impl::Phase::kOpen || impl_->write_end != Impl::WriteEnd::kOpen ||
      !impl_->GiveTicket()) {
    return {EngineOutcome::kFailed, 0};
  }
  size_t total = 0;
  while (total < in.size()) {
    if (OutputBytes() >= kOutputHighWater) {
      return {total > 0 ? EngineOutcome::kDone : EngineOutcome::kWantWrite, total};
    }
    const base::ByteSpan piece =
        in.subspan(total, std::min(in.size() - total, impl_->most_per_record));
    if (!impl_->records->Seal(piece, impl_->Output())) {
      impl_->FailInside("a record can not be sealed");
      return {EngineOutcome::kFailed, total};
    }
    total += piece.size();
  }
  return {EngineOutcome::kDone, total};
}

void TlsEngine::CloseWrite() {
  SendAlert(SSL_AD_CLOSE_NOTIFY);
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
  if (ERR_peek_error() != 0) {
    ERR_clear_error();  // what a turn finds or leaves in the thread's queue is nobody's
  }
  impl_->input.Keep();
  impl_->KeepOutput();
}

bool TlsEngine::HasBufferedInput() const {
  return impl_->phase == Impl::Phase::kOpen &&
         (impl_->opened_at < impl_->opened.size() ||
          (impl_->read_end == Impl::ReadEnd::kOpen && impl_->input.HasNext()));
}

bool TlsEngine::AskClientAgain() {
  return reauth() == ReauthState::kIdle && impl_->write_end == Impl::WriteEnd::kOpen &&
         impl_->read_end == Impl::ReadEnd::kOpen && impl_->reauthentication->Ask();
}

ReauthState TlsEngine::reauth() const {
  if (impl_->phase != Impl::Phase::kOpen || !impl_->is_server() || !impl_->peer.has_value() ||
      impl_->reauthentication == nullptr) {
    return ReauthState::kUnable;
  }
  return impl_->reauthentication->is_under_way() ? ReauthState::kUnderWay : ReauthState::kIdle;
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
  if (impl_->phase != Impl::Phase::kOpen) {
    return {};
  }
  const Impl::Negotiated& known = impl_->negotiated;
  return {"TLSv1.3", known.cipher, known.group, known.alpn, known.resumed};
}

}  // namespace postern::tls
