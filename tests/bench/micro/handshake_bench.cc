// SPDX-License-Identifier: Apache-2.0
// Mutual TLS between two engines, from the making of both to their end; and the part of it that
// judges the peer's certificates.
#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>

#include "common/x509/chain_verifier.h"
#include "tests/bench/micro/engine_link.h"
#include "tests/bench/micro/must.h"

namespace postern::bench {
namespace {

// The time is the thread's own, both sides together; a core of one side makes a connection in the
// time that this side's counter says.
class Sum {
 public:
  void Add(benchmark::State& state, const EngineLink& link) {
    state.SetIterationTime(std::chrono::duration<double>(link.whole_time()).count());
    client_ += link.client_time();
    server_ += link.server_time();
  }
  void Report(benchmark::State& state) const {
    const auto each = [&state](std::chrono::nanoseconds sum) {
      return static_cast<double>(sum.count()) / 1e3 / static_cast<double>(state.iterations());
    };
    state.counters["client_us"] = each(client_);
    state.counters["server_us"] = each(server_);
  }

 private:
  std::chrono::nanoseconds client_{0}, server_{0};
};

// Neither side has ever seen the other.
void HandshakeFull(benchmark::State& state) {
  TlsMesh mesh(static_cast<int>(state.range(0)));
  Sum sum;
  for (auto _ : state) {
    mesh.RenewContexts();
    EngineLink link(mesh);
    link.Shake();
    link.Free();
    sum.Add(state, link);
  }
  sum.Report(state);
}
BENCHMARK(HandshakeFull)
    ->ArgName("intermediates")
    ->Arg(0)
    ->Arg(1)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// Inside one connection, with the certificate that is known already: a signature, and its check.
void Reauthentication(benchmark::State& state) {
  const TlsMesh mesh(0);
  constexpr int kPerLink = 8;  // a client answers no more than a few without a pause
  auto link = std::make_unique<EngineLink>(mesh);
  link->Shake();
  int made = 0;
  for (auto _ : state) {
    if (made++ == kPerLink) {
      state.PauseTiming();
      link = std::make_unique<EngineLink>(mesh);
      link->Shake();
      made = 1;
      state.ResumeTiming();
    }
    link->Reauthenticate();
  }
}
BENCHMARK(Reauthentication)->Unit(benchmark::kMicrosecond);

void VerifyChain(benchmark::State& state) {
  const TlsMesh mesh(static_cast<int>(state.range(0)));
  const x509::X509StackPtr untrusted(sk_X509_new_null());
  const auto& chain = mesh.client_svid->chain();
  for (size_t i = 1; i < chain.size(); ++i) {
    if (sk_X509_push(untrusted.get(), x509::ShareX509(chain[i].get()).release()) == 0) {
      Die("out of memory");
    }
  }
  for (auto _ : state) {
    const x509::ChainVerdict verdict = x509::VerifyPeerChain(
        chain.front().get(), untrusted.get(), *mesh.bundles, x509::PeerRole::kClient, absl::Now());
    if (!verdict.peer.has_value()) {
      Die(verdict.error.detail);
    }
  }
}
BENCHMARK(VerifyChain)->ArgName("intermediates")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace postern::bench
