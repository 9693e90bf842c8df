// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/plain_transport.h"

#include <utility>

#include "proxy/session/socket_state.h"

namespace postern::session {

PlainTransport::PlainTransport(std::unique_ptr<net::Stream> stream) : stream_(std::move(stream)) {
  stream_->SetHandler(this);
}

PlainTransport::~PlainTransport() = default;

std::unique_ptr<net::Stream> PlainTransport::Release() {
  stream_->SetHandler(nullptr);
  return std::move(stream_);
}

TransportResult PlainTransport::Read(base::MutableByteSpan out) {
  const net::IoResult io = stream_->Read(out);
  switch (io.outcome) {
    case net::IoOutcome::kDone:
      return {TransportOutcome::kDone, io.bytes};
    case net::IoOutcome::kWouldBlock:
      return {TransportOutcome::kWouldBlock, 0};
    case net::IoOutcome::kEnd:
      return {TransportOutcome::kEnd, 0};
    case net::IoOutcome::kReset:
    case net::IoOutcome::kError:
      return Failed(io, "reading");
  }
  return Failed(io, "reading");
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

void PlainTransport::WantRead(bool want) {
  if (stream_ != nullptr) {
    stream_->WantRead(want);
  }
}

void PlainTransport::Reset() {
  if (stream_ != nullptr) {
    stream_->SetHandler(nullptr);
    stream_->Reset();
    stream_.reset();
  }
}

bool PlainTransport::Refuse(int /*alert*/) {
  return false;
}

bool PlainTransport::PeerHasReset() const {
  return stream_ != nullptr && session::PeerHasReset(*stream_);
}

std::chrono::milliseconds PlainTransport::Unacknowledged() const {
  return stream_ == nullptr ? std::chrono::milliseconds(0) : session::Unacknowledged(*stream_);
}

void PlainTransport::OnReadable(net::Stream& /*stream*/) noexcept {
  if (handler() != nullptr) {
    handler()->OnTransportReadable(*this);
  }
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
