// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>

#include "proxy/net/stream.h"
#include "proxy/session/transport.h"

namespace postern::session {

// What a transport that has a socket to itself does with it, whatever goes over it. As Transport.
class SocketTransport : public Transport, private net::Stream::Handler {
 public:
  void WantRead(bool want) final;
  void Reset() final;
  bool PeerHasReset() const final;
  std::chrono::milliseconds Unacknowledged() const final;

 protected:
  explicit SocketTransport(std::unique_ptr<net::Stream> stream);
  ~SocketTransport() override;

  // What a recv means as it is; kFailed says no more than that.
  static TransportResult ResultOf(const net::IoResult& io) {
    switch (io.outcome) {
      case net::IoOutcome::kDone:
        return {TransportOutcome::kDone, io.bytes};
      case net::IoOutcome::kWouldBlock:
        return {TransportOutcome::kWouldBlock, 0};
      case net::IoOutcome::kEnd:
        return {TransportOutcome::kEnd, 0};
      case net::IoOutcome::kReset:
      case net::IoOutcome::kError:
        break;
    }
    return {TransportOutcome::kFailed, 0};
  }

  std::unique_ptr<net::Stream> stream_;  // null: reset, or given away

 private:
  void OnReadable(net::Stream& stream) noexcept final;
};

}  // namespace postern::session
