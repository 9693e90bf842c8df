// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proxy/telemetry/worker_metrics.h"

namespace postern::telemetry {

// What the identity side reports at a scrape. A value.
struct IdentityGauges {
  struct Expiry {
    std::string kind;    // "leaf", "intermediate", "root"
    std::string sha256;  // of the certificate, hex; at most a few dozen
    absl::Time not_after;
  };
  std::vector<Expiry> expiries;
  uint64_t renewals_ok = 0;
  uint64_t renewals_failed = 0;
  uint64_t bundle_epoch = 0, bundle_sequence = 0;
  uint64_t policy_epoch = 0, policy_sequence = 0;
  double bundle_age_seconds = 0;  // since the issuer last confirmed it; 0 for files just read
  // Since the issuer last confirmed each kind of thing, infinite: never; empty with files.
  std::vector<std::pair<std::string_view, double>> trust_ages;
  bool trust_is_stale = false;    // by --max-stale: new connections are refused
  double clock_skew_seconds = 0;  // this clock minus the issuer's
  bool issuer_connected = false;
  uint64_t revocation_epoch = 0, revocation_sequence = 0;  // of the issuer's list
  uint64_t revocations = 0;                                // in it
  uint64_t crl_entries = 0;                                // in the verified CRLs of files
  uint64_t crls_stale = 0;                                 // of these CRLs, past their nextUpdate
  uint64_t reload_failures = 0;       // files that did not load; the old ones go on
  uint64_t roots_past_half_life = 0;  // of all bundles
};

// What the sources of numbers are. The functions are called at each scrape, from the scrape's
// thread.
struct MetricsSources {
  std::vector<const WorkerMetrics*> workers;
  std::function<IdentityGauges()> identity;
  std::function<bool()> ready;
  std::function<std::optional<bool>()> intercept_ok;  // nullopt: it is not known
  std::function<uint64_t()> access_log_dropped;
  size_t tls_only_tunnels = 0;  // said loudly: tunnels with client-auth=none
};

// The scrape: sums the workers' counters into prometheus-cpp families and writes the text format
// 0.0.4. All names are in metric_names.h, which also makes docs/METRICS.md. Any thread, one scrape
// at a time.
class MetricsRegistry {
 public:
  explicit MetricsRegistry(MetricsSources sources);
  ~MetricsRegistry();
  std::string Scrape();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// docs/METRICS.md, made from the table of names.
std::string MetricsReference();

}  // namespace postern::telemetry
