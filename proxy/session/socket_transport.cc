// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/socket_transport.h"

#include <utility>

#include "proxy/session/socket_state.h"

namespace postern::session {

SocketTransport::SocketTransport(std::unique_ptr<net::Stream> stream) : stream_(std::move(stream)) {
  stream_->SetHandler(this);
}

SocketTransport::~SocketTransport() = default;

void SocketTransport::WantRead(bool want) {
  if (stream_ != nullptr) {
    stream_->WantRead(want);
  }
}

void SocketTransport::Reset() {
  if (stream_ != nullptr) {
    stream_->SetHandler(nullptr);
    stream_->Reset();
    stream_.reset();
  }
}

bool SocketTransport::PeerHasReset() const {
  return stream_ != nullptr && session::PeerHasReset(*stream_);
}

std::chrono::milliseconds SocketTransport::Unacknowledged() const {
  return stream_ == nullptr ? std::chrono::milliseconds(0) : session::Unacknowledged(*stream_);
}

void SocketTransport::OnReadable(net::Stream& /*stream*/) noexcept {
  if (handler() != nullptr) {
    handler()->OnTransportReadable(*this);
  }
}

}  // namespace postern::session
