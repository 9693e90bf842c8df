// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <deque>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/failure.h"
#include "proxy/session/transport.h"

namespace postern::fakes {

// A transport without a socket: the test is the peer. What the peer says is a queue of chunks, each
// given by one Read; what it takes is bounded by `room`. Readiness is told by Poll, as a loop
// would.
class FakeTransport final : public session::Transport {
 public:
  // --- the peer's doings
  void PeerSays(std::string_view bytes) { incoming_.emplace_back(bytes); }
  void PeerEnds() { end_ = End::kClean; }
  void PeerFails(base::CloseReason reason) {
    end_ = End::kFailed;
    failure_.reason = reason;
  }
  // From now on the peer takes this many bytes more.
  void SetRoom(size_t room) { room_ = room; }
  void FailWrites(base::CloseReason reason) {
    write_fails_ = true;
    failure_.reason = reason;
  }
  void SetUnacknowledged(std::chrono::milliseconds time) { unacknowledged_ = time; }
  void SetPeerHasReset() { peer_has_reset_ = true; }
  // Chunks at the front that a Read gives without readiness, as TLS keeps decrypted records.
  void SetBuffered(size_t chunks) { buffered_ = chunks; }

  // One turn of a loop: tells readiness until nothing is ready.
  void Poll() {
    for (int i = 0; i < 10000; ++i) {
      if (wants_read_ && handler() != nullptr && (!incoming_.empty() || end_ != End::kNone)) {
        handler()->OnTransportReadable(*this);
      } else if (blocked_ && (room_ > 0 || write_fails_) && handler() != nullptr) {
        blocked_ = false;
        handler()->OnTransportWritable(*this);
      } else {
        return;
      }
    }
  }

  // --- what the peer saw
  const std::string& received() const { return received_; }
  bool write_closed() const { return write_closed_; }
  bool was_reset() const { return reset_; }
  bool wants_read() const { return wants_read_; }
  size_t chunks_left() const { return incoming_.size(); }
  size_t reads() const { return reads_; }
  size_t writes() const { return writes_; }

  // --- Transport
  session::TransportResult Handshake() override { return {session::TransportOutcome::kDone, 0}; }
  session::TransportResult Read(base::MutableByteSpan out) override {
    ++reads_;
    if (incoming_.empty()) {
      switch (end_) {
        case End::kNone:
          return {session::TransportOutcome::kWouldBlock, 0};
        case End::kClean:
          return {session::TransportOutcome::kEnd, 0};
        case End::kFailed:
          return {session::TransportOutcome::kFailed, 0};
      }
    }
    std::string& front = incoming_.front();
    const size_t n = std::min(front.size(), out.size());
    std::copy_n(front.begin(), n, out.begin());
    front.erase(0, n);
    if (front.empty()) {
      incoming_.pop_front();
      buffered_ -= std::min<size_t>(buffered_, 1);
    }
    return {session::TransportOutcome::kDone, n};
  }
  bool HasBufferedInput() const override { return buffered_ > 0 && !incoming_.empty(); }
  session::TransportResult Write(base::ByteSpan in) override {
    ++writes_;
    if (write_fails_) {
      return {session::TransportOutcome::kFailed, 0};
    }
    const size_t n = std::min(in.size(), room_);
    received_ += base::AsText(in.first(n));
    room_ -= n;
    blocked_ = blocked_ || n < in.size();
    return {n > 0 ? session::TransportOutcome::kDone : session::TransportOutcome::kWouldBlock, n};
  }
  size_t Unsent() const override { return 0; }
  void CloseWrite() override { write_closed_ = !write_fails_; }
  bool WriteClosed() const override { return write_closed_; }
  bool WriteFailed() const override { return write_fails_; }
  void WantRead(bool want) override { wants_read_ = want; }
  void Reset() override { reset_ = true; }
  bool Refuse(int /*alert*/) override { return false; }
  session::TransportResult Discard(base::MutableByteSpan scratch) override { return Read(scratch); }
  bool PeerHasReset() const override { return peer_has_reset_; }
  std::chrono::milliseconds Unacknowledged() const override { return unacknowledged_; }
  const base::Failure& failure() const override { return failure_; }
  const x509::VerifiedPeer* peer() const override { return nullptr; }
  tls::TlsFacts facts() const override { return {}; }
  tls::TicketUse ticket_use() const override { return tls::TicketUse::kNone; }

 private:
  enum class End { kNone, kClean, kFailed };

  std::deque<std::string> incoming_;
  std::string received_;
  size_t room_ = std::numeric_limits<size_t>::max();
  size_t buffered_ = 0;
  size_t reads_ = 0;
  size_t writes_ = 0;
  std::chrono::milliseconds unacknowledged_{0};
  base::Failure failure_;
  End end_ = End::kNone;
  bool wants_read_ = false;
  bool blocked_ = false;
  bool write_fails_ = false;
  bool write_closed_ = false;
  bool reset_ = false;
  bool peer_has_reset_ = false;
};

}  // namespace postern::fakes
