// SPDX-License-Identifier: Apache-2.0
// Finding an address among the static destinations, few and many.
#include <benchmark/benchmark.h>

#include <string>

#include "common/base/strings.h"
#include "proxy/config/destinations.h"
#include "tests/bench/micro/must.h"

namespace postern::bench {
namespace {

using config::DestinationSet;

// Ten addresses for each document, as a service with ten replicas has.
DestinationSet Read(int64_t addresses) {
  std::string yaml;
  for (int64_t i = 0; i < addresses; ++i) {
    if (i % 10 == 0) {
      yaml += base::StrCat("---\napiVersion: postern.dev/v1\nkind: Destination\nmetadata: {name: d",
                           i, "}\nspec:\n  ports: [80]\n  spiffeIds: [\"spiffe://td/d", i,
                           "\"]\n  addresses:\n");
    }
    yaml += base::StrCat("  - 198.18.", i / 250, ".", i % 250, "\n");
  }
  return Must(DestinationSet::FromYaml(yaml, "bench.yaml"));
}

void Find(benchmark::State& state, const std::string& address, bool found) {
  const DestinationSet set = Read(state.range(0));
  const base::IpAddress ip = Must(base::IpAddress::Parse(address));
  for (auto _ : state) {
    if (set.Find(ip, 80).has_value() != found) {
      Die("not what the file says");
    }
  }
}

void DestinationLast(benchmark::State& state) {
  const int64_t last = state.range(0) - 1;
  Find(state, base::StrCat("198.18.", last / 250, ".", last % 250), true);
}
BENCHMARK(DestinationLast)->ArgName("addresses")->Arg(10)->Arg(1000)->Arg(10000);

void DestinationUnknown(benchmark::State& state) {
  Find(state, "203.0.113.1", false);
}
BENCHMARK(DestinationUnknown)->ArgName("addresses")->Arg(10)->Arg(1000)->Arg(10000);

}  // namespace
}  // namespace postern::bench
