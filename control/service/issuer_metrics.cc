// SPDX-License-Identifier: Apache-2.0
#include "control/service/issuer_metrics.h"

#include <dirent.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "common/base/log.h"
#include "common/base/strings.h"

namespace postern::service {
namespace {

enum class Metric : uint8_t {
#define X(enumerator, name, type, labels, help) enumerator,
  POSTERN_ISSUER_METRICS(X)
#undef X
};

struct Row {
  const char* name;
  std::string_view type;
  std::string_view labels;
  const char* help;
};

constexpr Row kRows[] = {
#define X(enumerator, name, type, labels, help) {name, type, labels, help},
    POSTERN_ISSUER_METRICS(X)
#undef X
};

constexpr std::array<const char*, kEvidenceKindCount> kEvidenceTokens = {
    "join_token", "unix_peer", "existing_certificate", "enrolled_key"};

using Families = std::vector<prometheus::MetricFamily>;

prometheus::MetricFamily& Family(Families& families, Metric metric) {
  const Row& row = kRows[static_cast<size_t>(metric)];
  prometheus::MetricFamily family;
  family.name = row.name;
  family.help = row.help;
  family.type = row.type == "counter"     ? prometheus::MetricType::Counter
                : row.type == "histogram" ? prometheus::MetricType::Histogram
                                          : prometheus::MetricType::Gauge;
  families.push_back(std::move(family));
  return families.back();
}

void Sample(prometheus::MetricFamily& family, double value, std::string_view label_value = {}) {
  prometheus::ClientMetric sample;
  if (!label_value.empty()) {
    for (const Row& row : kRows) {
      if (family.name == row.name) {
        sample.label.push_back({std::string(row.labels), std::string(label_value)});
      }
    }
  }
  if (family.type == prometheus::MetricType::Counter) {
    sample.counter.value = value;
  } else {
    sample.gauge.value = value;
  }
  family.metric.push_back(std::move(sample));
}

using Labels = decltype(prometheus::ClientMetric::label);

void Labelled(prometheus::MetricFamily& family, double value, Labels labels) {
  prometheus::ClientMetric sample;
  sample.label = std::move(labels);
  sample.gauge.value = value;
  family.metric.push_back(std::move(sample));
}

void One(Families& families, Metric metric, double value, std::string_view label_value = {}) {
  Sample(Family(families, metric), value, label_value);
}

void Versions(Families& families, Metric metric, uint64_t epoch, uint64_t sequence) {
  prometheus::MetricFamily& family = Family(families, metric);
  Sample(family, static_cast<double>(epoch), "epoch");
  Sample(family, static_cast<double>(sequence), "sequence");
}

void Histogram(Families& families, const IssuerCounters& counters) {
  prometheus::ClientMetric sample;
  uint64_t cumulative = 0;
  for (size_t i = 0; i < counters.seconds.size(); ++i) {
    cumulative += counters.seconds[i].load(std::memory_order_relaxed);
    const bool last = i == IssuerCounters::kBounds.size();
    const double bound =
        last ? std::numeric_limits<double>::infinity() : IssuerCounters::kBounds[i];
    sample.histogram.bucket.push_back({cumulative, bound});
  }
  sample.histogram.sample_count = cumulative;
  sample.histogram.sample_sum =
      static_cast<double>(counters.seconds_sum_nanoseconds.load(std::memory_order_relaxed)) / 1e9;
  Family(families, Metric::kSeconds).metric.push_back(std::move(sample));
}

void Rotation(Families& families, const RotationGauges& rotation) {
  prometheus::MetricFamily& ends = Family(families, Metric::kCaNotAfter);
  for (const ca::CaFacts& ca : rotation.state.cas) {
    Labelled(ends, static_cast<double>(absl::ToUnixSeconds(ca.not_after)),
             {{"role", std::string(store::NameOf(ca.record.role))},
              {"state", std::string(store::NameOf(ca.record.state))}});
  }
  prometheus::MetricFamily& phase = Family(families, Metric::kRotationPhase);
  for (const ca::CaKind kind : {ca::CaKind::kRoot, ca::CaKind::kIntermediate}) {
    const bool under_way = rotation.state.kind == kind;
    Sample(phase, under_way ? static_cast<double>(rotation.state.phase) : 0.0, ca::NameOf(kind));
  }
}

void FederationFetches(Families& families, const IssuerGauges& gauges) {
  prometheus::MetricFamily& fetches = Family(families, Metric::kFederationFetches);
  for (const federation::ForeignStatus& one : gauges.federated) {
    for (size_t i = 0; i < one.fetches.size(); ++i) {
      const auto result = static_cast<federation::FetchResult>(i);
      prometheus::ClientMetric sample;
      sample.label.push_back({"trust_domain", one.trust_domain});
      sample.label.push_back({"result", std::string(federation::Token(result))});
      sample.counter.value = static_cast<double>(one.fetches[i]);
      fetches.metric.push_back(std::move(sample));
    }
  }
}

void FederationGauges(Families& families, const IssuerGauges& gauges) {
  prometheus::MetricFamily& age = Family(families, Metric::kFederatedAge);
  for (const federation::ForeignStatus& one : gauges.federated) {
    Sample(age, absl::ToDoubleSeconds(gauges.now - one.fetched_at), one.trust_domain);
  }
  prometheus::MetricFamily& roots = Family(families, Metric::kFederatedRoots);
  for (const federation::ForeignStatus& one : gauges.federated) {
    Sample(roots, static_cast<double>(one.root_der.size()), one.trust_domain);
  }
  prometheus::MetricFamily& stale = Family(families, Metric::kFederatedStale);
  for (const federation::ForeignStatus& one : gauges.federated) {
    Sample(stale, one.stale ? 1 : 0, one.trust_domain);
  }
  prometheus::MetricFamily& distrusted = Family(families, Metric::kFederatedDistrusted);
  for (const federation::ForeignStatus& one : gauges.federated) {
    Sample(distrusted, one.distrusted ? 1 : 0, one.trust_domain);
  }
  FederationFetches(families, gauges);
  One(families, Metric::kBundlesServed, static_cast<double>(gauges.bundles_served));
}

void PluggedCa(Families& families, const ca::PluggedCaStatus& status) {
  prometheus::MetricFamily& refused = Family(families, Metric::kCaRefused);
  for (size_t i = 0; i < ca::kCaProblemCount; ++i) {
    Sample(refused, static_cast<double>(status.refused[i]),
           ca::Token(static_cast<ca::CaProblem>(i)));
  }
  One(families, Metric::kCaRefusing, status.refusing ? 1 : 0);
  One(families, Metric::kCaWaiting, status.waiting ? 1 : 0);
  One(families, Metric::kCaChanges, static_cast<double>(status.changes));
  One(families, Metric::kCaLeaving, static_cast<double>(status.leaving_roots));
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

void Process(Families& families) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  One(families, Metric::kCpu, Seconds(usage.ru_utime) + Seconds(usage.ru_stime));
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  One(families, Metric::kResident,
      static_cast<double>(resident_pages) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  uint64_t open = 0;
  if (DIR* directory = opendir("/proc/self/fd"); directory != nullptr) {
    while (readdir(directory) != nullptr) {
      ++open;
    }
    closedir(directory);
  }
  // Not counted: ".", ".." and the directory itself.
  One(families, Metric::kOpenFds, open > 3 ? static_cast<double>(open - 3) : 0.0);
}

void Revocations(Families& families, const IssuerCounters& counters, const IssuerGauges& gauges) {
  Versions(families, Metric::kRevocationVersion, gauges.revocation_epoch,
           gauges.revocation_sequence);
  prometheus::MetricFamily& kinds = Family(families, Metric::kRevocations);
  for (size_t i = 0; i < x509::kRevokedByCount; ++i) {
    Sample(kinds, static_cast<double>(gauges.revocations[i]),
           x509::Token(static_cast<x509::RevokedBy>(i)));
  }
  One(families, Metric::kRevocationsBehind, static_cast<double>(gauges.revocations_not_followed));
  One(families, Metric::kStreamsRevoked, static_cast<double>(counters.streams_revoked.load()));
}

}  // namespace

void IssuerCounters::ObserveCertify(absl::Duration duration) {
  const double value = absl::ToDoubleSeconds(duration);
  size_t bucket = 0;
  while (bucket < kBounds.size() && value > kBounds[bucket]) {
    ++bucket;
  }
  seconds[bucket].fetch_add(1, std::memory_order_relaxed);
  seconds_sum_nanoseconds.fetch_add(static_cast<uint64_t>(absl::ToInt64Nanoseconds(duration)),
                                    std::memory_order_relaxed);
}

std::string IssuerMetricsText(const IssuerCounters& counters, const IssuerGauges& gauges) {
  Families families;
  prometheus::MetricFamily& issued = Family(families, Metric::kIssued);
  for (size_t i = 0; i < kEvidenceKindCount; ++i) {
    Sample(issued, static_cast<double>(counters.issued[i].load()), kEvidenceTokens[i]);
  }
  prometheus::MetricFamily& refused = Family(families, Metric::kRefused);
  for (const attest::RefusalReason reason : attest::kAllRefusalReasons) {
    Sample(refused, static_cast<double>(counters.refused[static_cast<size_t>(reason)].load()),
           attest::Token(reason));
  }
  One(families, Metric::kChallenges, static_cast<double>(counters.challenges.load()));
  Histogram(families, counters);
  One(families, Metric::kStreams, static_cast<double>(gauges.streams));
  One(families, Metric::kSubscriptions, static_cast<double>(gauges.subscriptions));
  One(families, Metric::kStreamsRefused, static_cast<double>(counters.streams_refused.load()));
  One(families, Metric::kConnections, static_cast<double>(gauges.connections));
  prometheus::MetricFamily& connections = Family(families, Metric::kConnectionsRefused);
  Sample(connections, static_cast<double>(gauges.refused_total_limit), "total");
  Sample(connections, static_cast<double>(gauges.refused_source_limit), "source");
  One(families, Metric::kNacks, static_cast<double>(counters.nacks.load()));
  One(families, Metric::kStoreErrors, static_cast<double>(gauges.store_errors));
  Versions(families, Metric::kBundleVersion, gauges.bundle_epoch, gauges.bundle_sequence);
  Versions(families, Metric::kPolicyVersion, gauges.policy_epoch, gauges.policy_sequence);
  prometheus::MetricFamily& expiry = Family(families, Metric::kNotAfter);
  Sample(expiry, static_cast<double>(absl::ToUnixSeconds(gauges.root_not_after)), "root");
  Sample(expiry, static_cast<double>(absl::ToUnixSeconds(gauges.intermediate_not_after)),
         "intermediate");
  Sample(expiry, static_cast<double>(absl::ToUnixSeconds(gauges.own_not_after)), "own");
  Rotation(families, gauges.rotation);
  One(families, Metric::kNotFollowed, static_cast<double>(gauges.rotation.not_followed));
  One(families, Metric::kRotationBlocked, gauges.rotation.blocked ? 1 : 0);
  One(families, Metric::kRootKey, gauges.root_key_present ? 1 : 0);
  PluggedCa(families, gauges.plugged_ca);
  One(families, Metric::kReady, gauges.ready ? 1 : 0);
  One(families, Metric::kLogDropped, static_cast<double>(base::DroppedLogLines()));
  FederationGauges(families, gauges);
  One(families, Metric::kBuild, 1, POSTERN_VERSION);
  Process(families);
  Revocations(families, counters, gauges);
  One(families, Metric::kRootsAging, static_cast<double>(gauges.rotation.roots_past_half_life));
  return prometheus::TextSerializer().Serialize(families);
}

std::string IssuerMetricsReference() {
  std::string text = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
  for (const Row& row : kRows) {
    std::string labels(row.labels);
    if (const size_t comma = labels.find(','); comma != std::string::npos) {
      labels.replace(comma, 1, "`, `");
    }
    text += base::StrCat("| `", row.name, "` | ", row.type, " | ",
                         row.labels.empty() ? std::string() : base::StrCat("`", labels, "`"), " | ",
                         row.help, " |\n");
  }
  return text;
}

}  // namespace postern::service
