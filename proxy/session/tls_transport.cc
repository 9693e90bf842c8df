// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/tls_transport.h"

#include <utility>

#include "proxy/session/socket_state.h"

namespace postern::session {

using net::IoOutcome;
using net::IoResult;
using tls::EngineOutcome;
using tls::EngineResult;

TlsTransport::TlsTransport(std::unique_ptr<net::Stream> stream,
                           std::unique_ptr<tls::TlsEngine> engine, tls::EngineScratch& scratch)
    : SocketTransport(std::move(stream)), engine_(std::move(engine)), scratch_(scratch) {}

TlsTransport::~TlsTransport() = default;

TransportResult TlsTransport::HandshakeWith(base::ByteSpan first_bytes) {
  if (!first_bytes.empty()) {
    engine_->Feed(first_bytes);
  }
  return StepHandshake();
}

TransportResult TlsTransport::Handshake() {
  const IoResult io = stream_->Read(scratch_.input());
  if (io.outcome == IoOutcome::kDone) {
    engine_->Feed(scratch_.input().first(io.bytes));
    return StepHandshake();
  }
  const TransportResult result = ResultOf(io);
  if (result.outcome == TransportOutcome::kFailed) {
    SetFailure(io, "reading during the handshake");
  }
  return result;
}

TransportResult TlsTransport::StepHandshake() {
  const EngineResult step = engine_->Handshake();
  const IoOutcome sent = SendOutput();
  engine_->EndTurn();
  if (step.outcome == EngineOutcome::kFailed) {
    failure_ = engine_->failure();
    read_ = ReadState::kFailed;
    return {TransportOutcome::kFailed, 0};
  }
  if (sent == IoOutcome::kReset || sent == IoOutcome::kError) {
    return {TransportOutcome::kFailed, 0};
  }
  return {step.outcome == EngineOutcome::kDone ? TransportOutcome::kDone
                                               : TransportOutcome::kWouldBlock,
          0};
}

TransportResult TlsTransport::Read(base::MutableByteSpan out) {
  if (read_ == ReadState::kOpen && engine_->HasBufferedInput()) {
    const size_t bytes = Decrypt(out);
    if (bytes > 0 || read_ != ReadState::kOpen) {
      return FinishRead(bytes);
    }
  }
  if (read_ != ReadState::kOpen) {
    return FinishRead(0);
  }
  return ReadFromSocket(out);
}

TransportResult TlsTransport::ReadFromSocket(base::MutableByteSpan out) {
  const IoResult io = stream_->Read(scratch_.input());
  switch (io.outcome) {
    case IoOutcome::kDone:
      engine_->Feed(scratch_.input().first(io.bytes));
      return FinishRead(Decrypt(out));
    case IoOutcome::kWouldBlock:
      return FinishRead(0);
    case IoOutcome::kEnd:
      // RFC 8446 section 6.1: without close_notify this is no end of the data but a cut.
      failure_ = {};
      failure_.reason = base::CloseReason::kTruncated;
      failure_.detail = absl::DataLossError("TCP ended without close_notify");
      break;
    case IoOutcome::kReset:
    case IoOutcome::kError:
      SetFailure(io, "reading");
      break;
  }
  read_ = ReadState::kFailed;
  return FinishRead(0);
}

size_t TlsTransport::Decrypt(base::MutableByteSpan out) {
  size_t bytes = 0;
  while (bytes < out.size()) {
    const EngineResult result = engine_->Read(out.subspan(bytes));
    if (result.outcome == EngineOutcome::kDone && result.bytes > 0) {
      bytes += result.bytes;
      continue;
    }
    if (result.outcome == EngineOutcome::kEnd) {
      read_ = ReadState::kEnding;
    } else if (result.outcome == EngineOutcome::kFailed) {
      failure_ = engine_->failure();
      read_ = ReadState::kFailing;
    }
    break;
  }
  return bytes;
}

TransportResult TlsTransport::FinishRead(size_t bytes) {
  // A KeyUpdate's answer, or an alert. That the socket refuses it is told by the next read or
  // write.
  if (write_ == WriteState::kOpen && engine_->HasOutput()) {
    SendOutput();
  }
  engine_->EndTurn();
  if (bytes > 0) {
    return {TransportOutcome::kDone, bytes};
  }
  switch (read_) {
    case ReadState::kOpen:
      return {TransportOutcome::kWouldBlock, 0};
    case ReadState::kEnding:
    case ReadState::kEnded:
      read_ = ReadState::kEnded;
      return {TransportOutcome::kEnd, 0};
    case ReadState::kFailing:
    case ReadState::kFailed:
      break;
  }
  read_ = ReadState::kFailed;
  return {TransportOutcome::kFailed, 0};
}

bool TlsTransport::HasBufferedInput() const {
  switch (read_) {
    case ReadState::kOpen:
      return engine_->HasBufferedInput();
    case ReadState::kEnding:
    case ReadState::kFailing:
      return true;
    case ReadState::kEnded:
    case ReadState::kFailed:
      return false;
  }
  return false;
}

TransportResult TlsTransport::Write(base::ByteSpan in) {
  if (write_ == WriteState::kFailed) {
    return {TransportOutcome::kFailed, 0};
  }
  if (write_ != WriteState::kOpen) {
    return {TransportOutcome::kWouldBlock, 0};
  }
  size_t taken = 0;
  while (taken < in.size() && write_ == WriteState::kOpen) {
    const EngineResult result = engine_->Write(in.subspan(taken));
    if (result.outcome == EngineOutcome::kFailed) {
      failure_ = engine_->failure();
      write_ = WriteState::kFailed;
      break;
    }
    taken += result.outcome == EngineOutcome::kDone ? result.bytes : 0;
    // Everything that fitted into the scratch leaves in one send.
    SendOutput();
  }
  engine_->EndTurn();
  if (write_ == WriteState::kFailed) {
    return {TransportOutcome::kFailed, 0};
  }
  return {taken > 0 ? TransportOutcome::kDone : TransportOutcome::kWouldBlock, taken};
}

net::IoOutcome TlsTransport::SendOutput() {
  while (engine_->HasOutput()) {
    const base::ByteSpan output = engine_->Output();
    const IoResult io = stream_->Write(output);
    if (io.outcome == IoOutcome::kReset || io.outcome == IoOutcome::kError) {
      SetFailure(io, "writing");
      write_ = WriteState::kFailed;
      return io.outcome;
    }
    const size_t sent = io.outcome == IoOutcome::kDone ? io.bytes : 0;
    engine_->Sent(sent);
    if (sent < output.size()) {
      if (write_ == WriteState::kOpen) {
        write_ = WriteState::kBlocked;
      }
      stream_->WantWrite(true);
      return IoOutcome::kWouldBlock;
    }
  }
  return IoOutcome::kDone;
}

void TlsTransport::CloseWrite() {
  if (write_ != WriteState::kOpen && write_ != WriteState::kBlocked) {
    return;
  }
  engine_->CloseWrite();
  EndWriting();
}

void TlsTransport::EndWriting() {
  write_ = WriteState::kClosing;
  FinishWriting(SendOutput());
  engine_->EndTurn();
}

void TlsTransport::FinishWriting(IoOutcome sent) {
  if (sent == IoOutcome::kDone && write_ == WriteState::kClosing) {
    write_ = WriteState::kClosed;
    // It fails only when the peer has reset the connection, which the next read tells.
    stream_->ShutdownWrite().IgnoreError();
  }
}

bool TlsTransport::Refuse(int alert) {
  if (stream_ == nullptr || (write_ != WriteState::kOpen && write_ != WriteState::kBlocked)) {
    return false;
  }
  if (alert >= 0) {
    engine_->SendAlert(alert);
  } else if (failure_.alert_sent < 0) {
    return false;
  }
  EndWriting();
  return true;
}

TransportResult TlsTransport::Discard(base::MutableByteSpan scratch) {
  if (stream_ == nullptr) {
    return {TransportOutcome::kFailed, 0};
  }
  return ResultOf(stream_->Read(scratch));
}

bool TlsTransport::AskPeerAgain() {
  const bool writes = write_ == WriteState::kOpen || write_ == WriteState::kBlocked;
  if (stream_ == nullptr || !writes || read_ != ReadState::kOpen || !engine_->AskClientAgain()) {
    return false;
  }
  if (write_ == WriteState::kOpen) {
    SendOutput();  // that it fails is told by the next read or write
  }
  engine_->EndTurn();
  return true;
}

const x509::VerifiedPeer* TlsTransport::peer() const {
  return engine_->peer().has_value() ? &*engine_->peer() : nullptr;
}

void TlsTransport::OnWritable(net::Stream& /*stream*/) noexcept {
  const IoOutcome sent = SendOutput();
  engine_->EndTurn();
  if (sent == IoOutcome::kWouldBlock) {
    return;
  }
  FinishWriting(sent);
  if (write_ == WriteState::kBlocked) {
    write_ = WriteState::kOpen;
  }
  if (handler() != nullptr) {
    handler()->OnTransportWritable(*this);
  }
  // Asked for again by a Write that was cut short, so the poll mask changes once for each blockade.
  if (stream_ != nullptr && write_ != WriteState::kBlocked) {
    stream_->WantWrite(false);
  }
}

void TlsTransport::SetFailure(const IoResult& io, const char* what) {
  failure_ = SocketFailure(io, what);
}

}  // namespace postern::session
