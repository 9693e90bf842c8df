// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/enum_index.h"
#include "common/base/failure.h"
#include "proxy/net/loop.h"
#include "proxy/session/transport.h"
#include "proxy/telemetry/worker_metrics.h"

namespace postern::session {

// Carries bytes between two transports, both ways, until both directions have ended or one fails.
// Two half-pipes: what a source gives goes to its sink at once, and only what the sink does not
// take is kept. More than `high_watermark` bytes waiting at a sink stop the source's reads;
// `low_watermark` resumes them. The end of one direction is passed on behind its last byte, the
// other lives on. Owned by its session, which also owns the transports; worker's thread.
class Relay final : private Transport::Handler {
 public:
  // Told once how it ended, never from inside Start's caller's stack frame twice.
  class Owner {
   public:
    // The first bytes of the downstream, before they are passed on; false refuses them (the owner
    // has closed the session).
    virtual bool OnFirstBytes(base::ByteSpan bytes) noexcept = 0;
    // Both directions ended properly.
    virtual void OnRelayDone() noexcept = 0;
    virtual void OnRelayFailed(const base::Failure& failure) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  struct Options {
    size_t high_watermark = 0;
    size_t low_watermark = 0;
    base::MutableByteSpan scratch;  // the worker's: holds bytes between a read and its write
    std::array<telemetry::Counter*, base::kSideCount> counters{};  // bytes, by who sent them
  };

  Relay(net::Loop& loop, Transport& downstream, Transport& upstream, Owner& owner,
        const Options& options);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // `first_bytes` of the downstream were read already (sniffed). The first `own` of them are not
  // the downstream's but the proxy's: they are sent before the others, in one write with them, and
  // neither counted nor shown to the owner.
  void Start(base::ByteSpan first_bytes, size_t own = 0);
  // Nothing moves and nothing is reported any more.
  void Stop();

  uint64_t bytes_from(base::Side side) const { return half(side).bytes; }
  // Loop::Now of the last byte that moved.
  std::chrono::milliseconds last_activity() const { return last_activity_; }
  // Bytes waiting for their sink, in either direction.
  size_t Backlog() const;

  // Finds what readiness does not tell: an end that no longer acknowledges, and a reset of an end
  // that is not read at the moment. Called now and then.
  void CheckLiveness(std::chrono::milliseconds limit);

 private:
  enum class State : uint8_t { kReady, kRunning, kOver };
  // kEnding: the source's end was read, not passed on yet. kBroken: the sink is gone.
  enum class HalfState : uint8_t { kFlowing, kPaused, kEnding, kDone, kBroken };
  struct Half {
    Transport* source = nullptr;
    Transport* sink = nullptr;
    base::Side from = base::Side::kDownstream;
    HalfState state = HalfState::kFlowing;
    uint64_t bytes = 0;
    std::vector<uint8_t> pending;  // read and not taken by the sink yet
    size_t pending_at = 0;         // how much of its beginning was taken since
    size_t Waiting() const { return pending.size() - pending_at + sink->Unsent(); }
  };

  void OnTransportReadable(Transport& transport) noexcept override;
  void OnTransportWritable(Transport& transport) noexcept override;

  Half& HalfFrom(const Transport& source);
  const Half& half(base::Side side) const { return halves_[base::At(side)]; }
  Half& Other(const Half& half);
  void Pull(Half& half);
  bool Forward(Half& half, base::ByteSpan bytes);
  bool Account(Half& half, base::ByteSpan bytes);
  bool PassOn(Half& half, base::ByteSpan bytes);
  bool FlushPending(Half& half);
  void KeepRest(Half& half, base::ByteSpan rest);
  void SourceEnded(Half& half);
  void PassOnEnd(Half& half);
  void UpdateFlow(Half& half);
  void SinkFailed(Half& half);
  void Fail(base::Side side, base::Failure failure);

  net::Loop& loop_;
  Owner& owner_;
  Options options_;
  std::array<Half, 2> halves_;  // by base::Side of their source
  std::chrono::milliseconds last_activity_{0};
  State state_ = State::kReady;
};

}  // namespace postern::session
