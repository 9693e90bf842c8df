// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "proxy/net/stream.h"
#include "proxy/session/socket_transport.h"

namespace postern::session {

// A socket as it is: the application's side, a plaintext peer, and every accepted connection until
// its first bytes are judged.
class PlainTransport final : public SocketTransport {
 public:
  explicit PlainTransport(std::unique_ptr<net::Stream> stream);
  ~PlainTransport();

  const net::Stream& stream() const { return *stream_; }
  // Gives the socket away, for a transport on top of it. This one is dead afterwards.
  std::unique_ptr<net::Stream> Release();

  TransportResult Handshake() override { return {TransportOutcome::kDone, 0}; }
  TransportResult Read(base::MutableByteSpan out) override;
  bool HasBufferedInput() const override { return false; }
  TransportResult Write(base::ByteSpan in) override;
  size_t Unsent() const override { return 0; }
  void CloseWrite() override;
  bool WriteClosed() const override { return write_ == WriteState::kClosed; }
  bool WriteFailed() const override { return false; }  // a FIN needs no room
  bool Refuse(int alert) override;
  TransportResult Discard(base::MutableByteSpan scratch) override { return Read(scratch); }
  const base::Failure& failure() const override { return failure_; }
  const x509::VerifiedPeer* peer() const override { return nullptr; }
  tls::TlsFacts facts() const override { return {}; }
  tls::TicketUse ticket_use() const override { return tls::TicketUse::kNone; }

 private:
  enum class WriteState : uint8_t { kOpen, kBlocked, kClosed };

  void OnWritable(net::Stream& stream) noexcept override;
  TransportResult Failed(const net::IoResult& io, const char* what);

  WriteState write_ = WriteState::kOpen;
  base::Failure failure_;
};

}  // namespace postern::session
