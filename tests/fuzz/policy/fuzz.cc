// SPDX-License-Identifier: Apache-2.0
// The YAML documents of operators and of the issuer: policy, peer modes, destinations.
#include "tests/fuzz/fuzz.h"

#include <string>
#include <string_view>

#include "common/base/host_name.h"
#include "common/base/strings.h"
#include "proxy/config/destinations.h"
#include "proxy/policy/policy_set.h"

using postern::config::DestinationSet;
using postern::policy::ConnectionFacts;
using postern::policy::PolicySet;
using postern::x509::SpiffeId;

namespace {

// Every fault names the place.
void CheckFault(const absl::Status& status) {
  POSTERN_FUZZ_CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  POSTERN_FUZZ_CHECK(postern::base::Message(status).starts_with("f:"));
}

void CheckPolicy(const std::string& yaml) {
  const SpiffeId workload = *SpiffeId::Parse("spiffe://td/db");
  const auto set = PolicySet::Compile({{"f", yaml}}, workload, 1);
  if (!set.ok()) {
    CheckFault(set.status());
    return;
  }
  ConnectionFacts facts;
  facts.destination_port = 5432;
  facts.source_ip = *postern::base::IpAddress::Parse("10.1.2.3");
  for (const std::string_view id : {"", "spiffe://td/web", "spiffe://td/batch/a"}) {
    if (!id.empty()) {
      facts.source = *SpiffeId::Parse(id);
    }
    POSTERN_FUZZ_CHECK(!(*set)->Authorize(facts).rule.empty());
  }
  static_cast<void>((*set)->ModeOf(3306));
}

void CheckDestinations(const std::string& yaml) {
  const auto set = DestinationSet::FromYaml(yaml, "f");
  if (!set.ok()) {
    CheckFault(set.status());
    return;
  }
  const auto found = set->Find(*postern::base::IpAddress::Parse("192.0.2.7"), 5432);
  POSTERN_FUZZ_CHECK(!found || !found->expected.empty());
  const auto named = set->FindName("db.example.org", 5432);
  if (!named) {
    return;
  }
  POSTERN_FUZZ_CHECK(!named->expected.empty());
  for (const auto& endpoint : named->endpoints) {
    POSTERN_FUZZ_CHECK(endpoint.name.empty() ||
                       (postern::base::IsHostName(endpoint.name) && !endpoint.ip.has_value()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string yaml(reinterpret_cast<const char*>(data), size);
  CheckPolicy(yaml);
  CheckDestinations(yaml);
  return 0;
}
