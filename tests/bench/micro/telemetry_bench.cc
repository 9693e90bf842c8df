// SPDX-License-Identifier: Apache-2.0
// What metrics cost on the data path, and what an access record costs its worker and its writer.
#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>

#include "proxy/telemetry/access_record.h"
#include "proxy/telemetry/worker_metrics.h"
#include "tests/bench/micro/must.h"

namespace postern::bench {
namespace {

using telemetry::AccessLog;
using telemetry::AccessRecord;

// What a relayed chunk counts.
void CountBytes(benchmark::State& state) {
  const auto metrics = std::make_unique<telemetry::WorkerMetrics>();
  telemetry::Counter& counter = metrics->bytes[0][1];
  for (auto _ : state) {
    counter.Add(512);
    benchmark::ClobberMemory();
  }
  if (counter.value() != 512 * static_cast<uint64_t>(state.iterations())) {
    Die("miscounted");
  }
}
BENCHMARK(CountBytes);

void ObserveHandshake(benchmark::State& state) {
  const auto metrics = std::make_unique<telemetry::WorkerMetrics>();
  for (auto _ : state) {
    metrics->handshake_seconds[0].Observe(std::chrono::microseconds(1700));
    benchmark::ClobberMemory();
  }
}
BENCHMARK(ObserveHandshake);

AccessRecord Record() {
  AccessRecord record;
  record.connection_id = 4711;
  record.opened = absl::Now();
  record.duration = std::chrono::microseconds(123456);
  record.security = telemetry::Security::kMutualTls;
  record.tunnel = "inbound:127.0.0.1:8443";
  record.downstream_address = "198.18.1.1:50123";
  record.destination = "127.0.0.1:8080";
  record.upstream_address = "127.0.0.1:8080";
  record.local_id = "spiffe://example.org/ns/shop/sa/checkout";
  record.peer_id = "spiffe://example.org/ns/shop/sa/cart";
  record.tls_version = "TLSv1.3";
  record.tls_cipher = "TLS_AES_128_GCM_SHA256";
  record.tls_group = "x25519";
  record.alpn = "postern/1";
  record.bytes_from_downstream = 4096;
  record.bytes_from_upstream = 65536;
  record.policy_rule = "shop / rule 3";
  record.end.reason = base::CloseReason::kOk;
  return record;
}

// On the writer's thread.
void AccessRecordToJson(benchmark::State& state) {
  const AccessRecord record = Record();
  for (auto _ : state) {
    benchmark::DoNotOptimize(AccessLog::ToJson(record));
  }
}
BENCHMARK(AccessRecordToJson);

// On the worker's thread, `per_record`. Each burst fits into the queue of a fresh log: a record
// that is dropped would be cheaper.
void AccessLogAdd(benchmark::State& state) {
  constexpr int kBurst = 4096;
  const AccessRecord record = Record();
  std::unique_ptr<AccessLog> log;
  for (auto _ : state) {
    state.PauseTiming();
    log = Must(AccessLog::Open("/dev/null"));
    state.ResumeTiming();
    for (int i = 0; i < kBurst; ++i) {
      log->Add(record);
    }
    if (log->dropped() > 0) {
      Die("dropped records");
    }
  }
  state.counters["per_record"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kBurst),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(AccessLogAdd)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace postern::bench
