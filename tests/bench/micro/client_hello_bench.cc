// SPDX-License-Identifier: Apache-2.0
// What an inbound port does with the first bytes of a connection.
#include <benchmark/benchmark.h>

#include <string_view>
#include <vector>

#include "proxy/tls/client_hello.h"
#include "tests/bench/micro/engine_link.h"
#include "tests/bench/micro/must.h"

namespace postern::bench {
namespace {

using tls::SniffVerdict;

void Sniff(benchmark::State& state, base::ByteSpan bytes, SniffVerdict expected) {
  for (auto _ : state) {
    const tls::SniffResult result = tls::SniffClientHello(bytes);
    if (result.verdict != expected ||
        (expected == SniffVerdict::kClientHello && !tls::IsMeshHello(result.hello))) {
      Die("not the verdict that these bytes deserve");
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}

std::vector<uint8_t> MeshHello() {
  return EngineLink(TlsMesh(0)).FirstFlight();
}

void SniffMeshHello(benchmark::State& state) {
  const std::vector<uint8_t> hello = MeshHello();
  Sniff(state, hello, SniffVerdict::kClientHello);
}
BENCHMARK(SniffMeshHello);

void SniffFirstHalfOfMeshHello(benchmark::State& state) {
  const std::vector<uint8_t> hello = MeshHello();
  Sniff(state, base::ByteSpan(hello).first(hello.size() / 2), SniffVerdict::kNeedMore);
}
BENCHMARK(SniffFirstHalfOfMeshHello);

void SniffHttp(benchmark::State& state) {
  Sniff(state, base::AsBytes("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), SniffVerdict::kNotTls);
}
BENCHMARK(SniffHttp);

}  // namespace
}  // namespace postern::bench
