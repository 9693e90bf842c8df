// SPDX-License-Identifier: Apache-2.0
// The relay alone: chunks from one transport to the other, both in memory, without TLS and sockets.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "proxy/session/relay.h"
#include "tests/bench/micro/must.h"

namespace postern::bench {
namespace {

using session::TransportOutcome;
using session::TransportResult;

// A peer that always has a chunk of a given size to say and takes everything.
class MemoryTransport final : public session::Transport {
 public:
  explicit MemoryTransport(size_t chunk) : chunk_(chunk, 0x5A) {}

  void Speak() { handler()->OnTransportReadable(*this); }
  uint64_t taken() const { return taken_; }

  TransportResult Handshake() override { return {TransportOutcome::kDone, 0}; }
  TransportResult Read(base::MutableByteSpan out) override {
    const size_t size = std::min(out.size(), chunk_.size());
    std::copy_n(chunk_.begin(), size, out.begin());
    return {TransportOutcome::kDone, size};
  }
  bool HasBufferedInput() const override { return false; }
  TransportResult Write(base::ByteSpan in) override {
    benchmark::DoNotOptimize(in.data());
    taken_ += in.size();
    return {TransportOutcome::kDone, in.size()};
  }
  size_t Unsent() const override { return 0; }
  void CloseWrite() override {}
  bool WriteClosed() const override { return false; }
  bool WriteFailed() const override { return false; }
  void WantRead(bool /*want*/) override {}
  void Reset() override {}
  bool Refuse(int /*alert*/) override { return false; }
  TransportResult Discard(base::MutableByteSpan scratch) override { return Read(scratch); }
  bool PeerHasReset() const override { return false; }
  std::chrono::milliseconds Unacknowledged() const override { return std::chrono::milliseconds(0); }
  const base::Failure& failure() const override { return failure_; }
  const x509::VerifiedPeer* peer() const override { return nullptr; }
  tls::TlsFacts facts() const override { return {}; }
  tls::TicketUse ticket_use() const override { return tls::TicketUse::kNone; }

 private:
  std::vector<uint8_t> chunk_;
  uint64_t taken_ = 0;
  base::Failure failure_;
};

class Owner final : public session::Relay::Owner {
 public:
  bool OnFirstBytes(base::ByteSpan /*bytes*/) noexcept override { return true; }
  void OnRelayDone() noexcept override { Die("the relay ended"); }
  void OnRelayFailed(const base::Failure& /*failure*/) noexcept override {
    Die("the relay failed");
  }
};

void Relay(benchmark::State& state) {
  const std::unique_ptr<net::Loop> loop = Must(net::Loop::Create());
  const auto size = static_cast<size_t>(state.range(0));
  MemoryTransport downstream(size), upstream(size);
  std::vector<uint8_t> scratch(96U << 10U);
  telemetry::Counter from_downstream, from_upstream;
  Owner owner;
  session::Relay relay(*loop, downstream, upstream, owner,
                       {256U << 10U, 64U << 10U, scratch, {&from_downstream, &from_upstream}});
  relay.Start({});
  for (auto _ : state) {
    downstream.Speak();
    upstream.Speak();
  }
  const auto bytes = static_cast<uint64_t>(state.iterations()) * size;
  if (upstream.taken() != bytes || downstream.taken() != bytes || from_upstream.value() != bytes) {
    Die("not all bytes have arrived");
  }
  state.SetBytesProcessed(static_cast<int64_t>(2 * bytes));
}
BENCHMARK(Relay)->ArgName("chunk")->Arg(64)->Arg(1 << 10)->Arg(16 << 10)->Arg(64 << 10);

}  // namespace
}  // namespace postern::bench
