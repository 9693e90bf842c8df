// SPDX-License-Identifier: Apache-2.0
// The record path: bytes are encrypted by one engine and decrypted by the other, both in this
// thread.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "tests/bench/micro/engine_link.h"

namespace postern::bench {
namespace {

constexpr int64_t kRecordBytes = 16 << 10;

void Record(benchmark::State& state, bool from_client) {
  const TlsMesh mesh(0);
  EngineLink link(mesh);
  link.Shake();
  std::mt19937 random(1);
  std::vector<uint8_t> bytes(static_cast<size_t>(state.range(0)));
  for (uint8_t& byte : bytes) {
    byte = static_cast<uint8_t>(random());
  }
  for (auto _ : state) {
    link.Carry(from_client, bytes);
  }
  const int64_t records = (state.range(0) + kRecordBytes - 1) / kRecordBytes;
  state.SetBytesProcessed(state.iterations() * state.range(0));
  state.counters["per_record"] =
      benchmark::Counter(static_cast<double>(state.iterations() * records),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

BENCHMARK_CAPTURE(Record, client_to_server, true)
    ->Arg(64)
    ->Arg(1 << 10)
    ->Arg(16 << 10)
    ->Arg(1 << 20);
BENCHMARK_CAPTURE(Record, server_to_client, false)
    ->Arg(64)
    ->Arg(1 << 10)
    ->Arg(16 << 10)
    ->Arg(1 << 20);

}  // namespace
}  // namespace postern::bench
