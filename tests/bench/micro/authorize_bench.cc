// SPDX-License-Identifier: Apache-2.0
// The verdict of policy on one connection, with few rules and with many.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "common/base/strings.h"
#include "proxy/policy/policy_set.h"
#include "tests/bench/micro/must.h"

namespace postern::bench {
namespace {

using policy::ConnectionFacts;
using policy::PolicySet;

// One ALLOW document with so many rules. Every second one names an exact identity and a port, the
// others a prefix of identities together with an address range.
std::shared_ptr<const PolicySet> Compile(int64_t rules) {
  std::string yaml =
      "apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: bench}\n"
      "spec:\n  action: ALLOW\n  rules:\n";
  for (int64_t i = 0; i < rules; ++i) {
    yaml += i % 2 == 0 ? base::StrCat("  - from: [{spiffeIds: [\"spiffe://td/app-", i, "\"]}]\n",
                                      "    to: [{ports: [5432]}]\n")
                       : base::StrCat("  - from: [{spiffeIds: [\"spiffe://td/team-", i,
                                      "/*\"], cidrs: [10.", i % 256, ".0.0/16]}]\n");
  }
  return Must(
      PolicySet::Compile({{"bench.yaml", yaml}}, Must(x509::SpiffeId::Parse("spiffe://td/db")), 1));
}

ConnectionFacts From(const std::string& id) {
  ConnectionFacts facts;
  facts.source = Must(x509::SpiffeId::Parse(id));
  facts.source_ip = Must(base::IpAddress::Parse("10.1.2.3"));
  facts.destination_port = 5432;
  facts.tunnel = "inbound:127.0.0.1:5432";
  return facts;
}

void Authorize(benchmark::State& state, const ConnectionFacts& facts, bool allowed) {
  const std::shared_ptr<const PolicySet> set = Compile(state.range(0));
  for (auto _ : state) {
    const policy::Decision decision = set->Authorize(facts);
    if (decision.allowed != allowed) {
      Die("not the decision that the rules make");
    }
  }
}

void AuthorizeExactIdentity(benchmark::State& state) {
  Authorize(state, From(base::StrCat("spiffe://td/app-", state.range(0) - 2)), true);
}
BENCHMARK(AuthorizeExactIdentity)->ArgName("rules")->Arg(10)->Arg(10000);

void AuthorizePrefixAndRange(benchmark::State& state) {
  Authorize(state, From("spiffe://td/team-1/worker"), true);
}
BENCHMARK(AuthorizePrefixAndRange)->ArgName("rules")->Arg(10)->Arg(10000);

void AuthorizeNobody(benchmark::State& state) {
  Authorize(state, From("spiffe://td/stranger"), false);
}
BENCHMARK(AuthorizeNobody)->ArgName("rules")->Arg(10)->Arg(10000);

}  // namespace
}  // namespace postern::bench
