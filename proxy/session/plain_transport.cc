// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/plain_transport.h"

#include <utility>

#include "proxy/session/socket_state.h"

namespace postern::session {

PlainTransport::PlainTransport(std::unique_ptr<net::Stream> stream)
    : SocketTransport(std::move(stream)) {}

PlainTransport::~PlainTransport() = default;

std::unique_ptr<net::Stream> PlainTransport::Release() {
  stream_->SetHandler(nullptr);
  return std::move(stream_);
}

TransportResult PlainTransport::Read(base::MutableByteSpan out) {
  const net::IoResult io = stream_->Read(out);
  const TransportResult result = ResultOf(io);
  return result.outcome == TransportOutcome::kFailed ? Failed(io, "reading") : result;
}

TransportResult PlainTransport::Write(base::ByteSpan in) {
  if (write_ != WriteState::kOpen) {
    return {TransportOutcome::kWouldBlock, 0};
  }
  const net::IoResult io = stream_->Write(in);
  if (io.outcome == net::IoOutcome::kReset || io.outcome == net::IoOutcome::kError) {
    return Failed(io, "writing");
  }
  const size_t taken = io.outcome == net::IoOutcome::kDone ? io.bytes : 0;
  if (taken < in.size()) {
    write_ = WriteState::kBlocked;
    stream_->WantWrite(true);
  }
  return {taken > 0 ? TransportOutcome::kDone : TransportOutcome::kWouldBlock, taken};
}

void PlainTransport::CloseWrite() {
  if (write_ == WriteState::kClosed) {
    return;
  }
  write_ = WriteState::kClosed;
  stream_->WantWrite(false);
  // It fails only when the peer has reset the connection, which the next read tells.
  stream_->ShutdownWrite().IgnoreError();
}

bool PlainTransport::Refuse(int /*alert*/) {
  return false;
}

void PlainTransport::OnWritable(net::Stream& /*stream*/) noexcept {
  if (write_ == WriteState::kBlocked) {
    write_ = WriteState::kOpen;
    if (handler() != nullptr) {
      handler()->OnTransportWritable(*this);
    }
  }
  // Asked for again by a Write that was cut short, so the poll mask changes once for each blockade.
  if (stream_ != nullptr && write_ != WriteState::kBlocked) {
    stream_->WantWrite(false);
  }
}

TransportResult PlainTransport::Failed(const net::IoResult& io, const char* what) {
  failure_ = SocketFailure(io, what);
  return {TransportOutcome::kFailed, 0};
}

}  // namespace postern::session
