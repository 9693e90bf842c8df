// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "common/base/bytes.h"
#include "common/base/failure.h"
#include "common/x509/chain_verifier.h"
#include "proxy/tls/tls_engine.h"

namespace postern::session {

// TLS alerts for refusals after the handshake (RFC 8446 section 6).
inline constexpr int kAlertCertificateRevoked = 44;
inline constexpr int kAlertAccessDenied = 49;
inline constexpr int kAlertCertificateRequired = 116;

enum class TransportOutcome : uint8_t {
  kDone,        // `bytes` were moved (at least one), or the handshake is complete
  kWouldBlock,  // nothing now; readiness will be reported
  kEnd,         // read only: the peer ended its direction properly
  kFailed,      // failure() says why; nothing more comes
};

struct TransportResult {
  TransportOutcome outcome = TransportOutcome::kFailed;
  size_t bytes = 0;
};

// One end of a session: application bytes in and out, whatever carries them (a plain socket, TLS
// over a socket, a stream of a tunnel). Identify, authorise, relay, close and record use this
// alone. Owned by its session, confined to the worker's thread. Calls its handler only from the
// loop, never from inside one of its own functions. May be destroyed by its handler in
// OnTransportReadable, not in OnTransportWritable (sessions die through Loop::Defer).
class Transport {
 public:
  class Handler {
   public:
    // Bytes, the end or an error wait to be read, and reading is wanted.
    virtual void OnTransportReadable(Transport& transport) noexcept = 0;
    // What was taken has left (Unsent() is 0): Write takes more, or a CloseWrite is complete.
    virtual void OnTransportWritable(Transport& transport) noexcept = 0;

   protected:
    ~Handler() = default;
  };

  Transport() = default;
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  void SetHandler(Handler* handler) { handler_ = handler; }

  // Does what must be done before bytes can flow; kDone where there is nothing to do. Call again
  // when readable. kEnd: the peer ended during it.
  virtual TransportResult Handshake() = 0;

  // At most one recv. With HasBufferedInput afterwards, another Read gives more without readiness.
  virtual TransportResult Read(base::MutableByteSpan out) = 0;
  virtual bool HasBufferedInput() const = 0;

  // Takes a part of `in`, or with kWouldBlock nothing; OnTransportWritable comes when it takes
  // more.
  virtual TransportResult Write(base::ByteSpan in) = 0;
  // Bytes taken, not yet given to the kernel.
  virtual size_t Unsent() const = 0;
  // Ends our direction after what was taken; complete once WriteClosed. WriteFailed: it never will
  // be, as the peer is gone; nothing else tells.
  virtual void CloseWrite() = 0;
  virtual bool WriteClosed() const = 0;
  virtual bool WriteFailed() const = 0;

  virtual void WantRead(bool want) = 0;

  // Cuts the connection so that the peer sees RST. The transport is dead afterwards.
  virtual void Reset() = 0;
  // Refuses the peer in its own language, with this TLS alert (negative: the one that the handshake
  // has made already), and ends our direction. False where there is no such language, or nothing to
  // say: Reset then.
  virtual bool Refuse(int alert) = 0;
  // Reads and forgets, for a refused peer: kDone or kWouldBlock while the peer is still there.
  virtual TransportResult Discard(base::MutableByteSpan scratch) = 0;

  // Whether the peer has reset the connection; looks without reading.
  virtual bool PeerHasReset() const = 0;
  // How long the oldest sent byte has been waiting for its acknowledgement.
  virtual std::chrono::milliseconds Unacknowledged() const = 0;

  // After kFailed; the side is the caller's to fill in.
  virtual const base::Failure& failure() const = 0;
  // The verified peer; null without one.
  virtual const x509::VerifiedPeer* peer() const = 0;
  virtual tls::TlsFacts facts() const = 0;
  virtual tls::TicketUse ticket_use() const = 0;

  // Inbound TLS: asks the client to prove itself again inside the connection; peer() changes when
  // it has done so with something that lasts longer. False: not now, or never.
  virtual bool AskPeerAgain() { return false; }
  virtual tls::ReauthState reauth() const { return tls::ReauthState::kUnable; }

 protected:
  Handler* handler() const { return handler_; }

 private:
  Handler* handler_ = nullptr;
};

}  // namespace postern::session
