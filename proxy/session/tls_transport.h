// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "proxy/net/stream.h"
#include "proxy/session/socket_transport.h"
#include "proxy/tls/tls_engine.h"

namespace postern::session {

// TLS over a socket. Every call is one turn of the engine, so that the worker's scratch is free
// again when it returns.
class TlsTransport final : public SocketTransport {
 public:
  TlsTransport(std::unique_ptr<net::Stream> stream, std::unique_ptr<tls::TlsEngine> engine,
               tls::EngineScratch& scratch);
  ~TlsTransport();

  // The first turn of a server whose first bytes were read already (sniffed); Handshake after that.
  TransportResult HandshakeWith(base::ByteSpan first_bytes);

  TransportResult Handshake() override;
  TransportResult Read(base::MutableByteSpan out) override;
  bool HasBufferedInput() const override;
  TransportResult Write(base::ByteSpan in) override;
  size_t Unsent() const override { return engine_->OutputBytes(); }
  void CloseWrite() override;
  bool WriteClosed() const override { return write_ == WriteState::kClosed; }
  bool WriteFailed() const override { return write_ == WriteState::kFailed; }
  bool Refuse(int alert) override;
  TransportResult Discard(base::MutableByteSpan scratch) override;
  const base::Failure& failure() const override { return failure_; }
  const x509::VerifiedPeer* peer() const override;
  tls::TlsFacts facts() const override { return engine_->facts(); }
  tls::TicketUse ticket_use() const override { return engine_->ticket_use(); }
  bool AskPeerAgain() override;
  tls::ReauthState reauth() const override { return engine_->reauth(); }

 private:
  // kBlocked: the socket took less than there was. kClosing: close_notify, then FIN, are on the
  // way.
  enum class WriteState : uint8_t { kOpen, kBlocked, kClosing, kClosed, kFailed };
  // kEnding and kFailing: seen by the engine, not told to the reader yet, as bytes came before it.
  enum class ReadState : uint8_t { kOpen, kEnding, kEnded, kFailing, kFailed };

  void OnWritable(net::Stream& stream) noexcept override;
  TransportResult StepHandshake();
  size_t Decrypt(base::MutableByteSpan out);
  TransportResult FinishRead(size_t bytes);
  net::IoOutcome SendOutput();
  void EndWriting();
  void FinishWriting(net::IoOutcome sent);
  void SetFailure(const net::IoResult& io, const char* what);
  TransportResult ReadFromSocket(base::MutableByteSpan out);

  std::unique_ptr<tls::TlsEngine> engine_;
  tls::EngineScratch& scratch_;
  WriteState write_ = WriteState::kOpen;
  ReadState read_ = ReadState::kOpen;
  base::Failure failure_;
};

}  // namespace postern::session
