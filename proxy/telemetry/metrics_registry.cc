// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/metrics_registry.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/enum_index.h"
#include "common/base/log.h"
#include "proxy/telemetry/metric_names.h"
#include "proxy/telemetry/process_metrics.h"

namespace postern::telemetry {
namespace {

using base::At;
using base::CloseReason;
using base::Direction;
using base::Side;
using prometheus::ClientMetric;
using prometheus::MetricFamily;

constexpr std::array kDirections = {Direction::kInbound, Direction::kOutbound};
constexpr std::array kSides = {Side::kDownstream, Side::kUpstream};
// A chain and a few roots per trust domain; what is beyond it would be a series without bound.
constexpr size_t kMaxExpirySeries = 64;

// Reasons that a handshake can fail for: these series exist from the start, others once they count.
constexpr std::array kHandshakeReasons = {
    CloseReason::kReset,
    CloseReason::kTruncated,
    CloseReason::kRejectedByPeer,
    CloseReason::kHandshakeTimeout,
    CloseReason::kHandshakeFailed,
    CloseReason::kTlsVersion,
    CloseReason::kPeerNoCertificate,
    CloseReason::kPeerUntrusted,
    CloseReason::kPeerExpired,
    CloseReason::kPeerNotYetValid,
    CloseReason::kPeerBadCertificate,
    CloseReason::kPeerWrongUsage,
    CloseReason::kTrustDomainUnknown,
    CloseReason::kIdentityMismatch,
    CloseReason::kPeerRevoked,
    CloseReason::kCrlExpired,
};

// The families of one scrape, being filled.
class Exposition {
 public:
  // `values` in the order of the metric's labels.
  void Add(Metric metric, std::initializer_list<std::string_view> values, double number) {
    ClientMetric& sample = Sample(metric, values);
    if (Info(metric).kind == MetricKind::kCounter) {
      sample.counter.value = number;
    } else {
      sample.gauge.value = number;
    }
  }
  void Add(Metric metric, std::initializer_list<std::string_view> values, uint64_t number) {
    Add(metric, values, static_cast<double>(number));
  }
  template <typename Number>
  void AddIfKnown(Metric metric, const std::optional<Number>& number) {
    if (number) {
      Add(metric, {}, static_cast<double>(*number));
    }
  }
  void AddHistogram(Metric metric, std::initializer_list<std::string_view> values,
                    ClientMetric::Histogram histogram) {
    Sample(metric, values).histogram = std::move(histogram);
  }

  std::string Text() const {
    std::vector<MetricFamily> filled;
    for (const MetricFamily& family : families_) {
      if (!family.metric.empty()) {
        filled.push_back(family);
      }
    }
    return static_cast<const prometheus::Serializer&>(prometheus::TextSerializer())
        .Serialize(filled);
  }

 private:
  ClientMetric& Sample(Metric metric, std::initializer_list<std::string_view> values) {
    const MetricInfo& info = Info(metric);
    MetricFamily& family = families_[At(metric)];
    if (family.metric.empty()) {
      family.name = std::string(info.name);
      family.help = std::string(info.help);
      family.type = TypeOf(info.kind);
    }
    ClientMetric& sample = family.metric.emplace_back();
    auto value = values.begin();
    for (const std::string_view label : LabelNames(info)) {
      sample.label.push_back(
          {std::string(label), value == values.end() ? std::string() : std::string(*value++)});
    }
    return sample;
  }

  static prometheus::MetricType TypeOf(MetricKind kind) {
    switch (kind) {
      case MetricKind::kCounter:
        return prometheus::MetricType::Counter;
      case MetricKind::kGauge:
        return prometheus::MetricType::Gauge;
      case MetricKind::kHistogram:
        return prometheus::MetricType::Histogram;
    }
    return prometheus::MetricType::Untyped;
  }

  std::array<MetricFamily, kMetrics.size()> families_;
};

using Workers = std::vector<const WorkerMetrics*>;

// Sums one counter, which `select` finds in a worker's numbers, over all workers.
template <typename Select>
uint64_t Sum(const Workers& workers, Select select) {
  uint64_t sum = 0;
  for (const WorkerMetrics* worker : workers) {
    sum += select(*worker).value();
  }
  return sum;
}

bool CanHappen(Direction direction, Security security) {
  return security != Security::kNone &&
         (security != Security::kTlsOnly || direction == Direction::kInbound);
}

void AddConnections(const Workers& workers, Direction direction, Exposition& out) {
  const size_t d = At(direction);
  const std::string_view way = Token(direction);
  // Closed before opened: a connection that ends between the two never makes the difference
  // negative.
  uint64_t closed_in_all = 0;
  for (const CloseReason reason : base::kAllCloseReasons) {
    const uint64_t closed = Sum(
        workers, [&](const WorkerMetrics& w) -> auto& { return w.closed[d][At(reason)]; });
    closed_in_all += closed;
    out.Add(Metric::kConnectionsClosed, {way, Token(reason)}, closed);
  }
  const uint64_t opened = Sum(
      workers, [&](const WorkerMetrics& w) -> auto& { return w.opened[d]; });
  out.Add(Metric::kConnectionsOpened, {way}, opened);
  out.Add(Metric::kConnectionsOpen, {way}, opened > closed_in_all ? opened - closed_in_all : 0);
  for (size_t i = 0; i < kSecurityCount; ++i) {
    const auto security = static_cast<Security>(i);
    const uint64_t secured = Sum(
        workers, [&](const WorkerMetrics& w) -> auto& { return w.secured[d][i]; });
    if (secured > 0 || CanHappen(direction, security)) {
      out.Add(Metric::kConnectionsSecured, {way, Token(security)}, secured);
    }
  }
  for (const Side side : kSides) {
    out.Add(Metric::kBytes, {way, Token(side)},
            Sum(
                workers, [&](const WorkerMetrics& w) -> auto& { return w.bytes[d][At(side)]; }));
  }
  out.Add(Metric::kPolicyDenied, {way},
          Sum(
              workers, [&](const WorkerMetrics& w) -> auto& { return w.denied[d]; }));
  out.Add(Metric::kPolicyAuditDenied, {way},
          Sum(
              workers, [&](const WorkerMetrics& w) -> auto& { return w.audited[d]; }));
}

// One histogram, which `select` finds in a worker's numbers, over all workers.
template <typename Select>
ClientMetric::Histogram Times(const Workers& workers, Select select) {
  ClientMetric::Histogram histogram;
  uint64_t nanoseconds = 0;
  for (const WorkerMetrics* worker : workers) {
    nanoseconds += select(*worker).sum_nanoseconds();
  }
  uint64_t count = 0;
  for (size_t i = 0; i <= DurationHistogram::kBounds.size(); ++i) {
    for (const WorkerMetrics* worker : workers) {
      count += select(*worker).bucket(i);
    }
    const double bound = i < DurationHistogram::kBounds.size()
                             ? DurationHistogram::kBounds[i]
                             : std::numeric_limits<double>::infinity();
    histogram.bucket.push_back({count, bound});
  }
  histogram.sample_count = count;
  histogram.sample_sum = static_cast<double>(nanoseconds) / 1e9;
  return histogram;
}

void AddHandshakes(const Workers& workers, Direction direction, Exposition& out) {
  const size_t d = At(direction);
  const std::string_view way = Token(direction);
  out.Add(Metric::kHandshakes, {way},
          Sum(
              workers, [&](const WorkerMetrics& w) -> auto& { return w.handshakes[d]; }));
  out.Add(Metric::kHandshakesResumed, {way},
          Sum(
              workers, [&](const WorkerMetrics& w) -> auto& { return w.resumed[d]; }));
  for (const CloseReason reason : base::kAllCloseReasons) {
    const uint64_t failures = Sum(
        workers, [&](const WorkerMetrics& w) -> auto& {
          return w.handshake_failures[d][At(reason)];
        });
    if (failures > 0 || std::ranges::find(kHandshakeReasons, reason) != kHandshakeReasons.end()) {
      out.Add(Metric::kHandshakeFailures, {way, Token(reason)}, failures);
    }
  }
  out.AddHistogram(
      Metric::kHandshakeSeconds, {way},
      Times(
          workers, [&](const WorkerMetrics& w) -> auto& { return w.handshake_seconds[d]; }));
}

void AddReauthentications(const Workers& workers, Exposition& out) {
  for (size_t i = 0; i < kReauthResultCount; ++i) {
    out.Add(Metric::kReauthentications, {Token(static_cast<ReauthResult>(i))},
            Sum(
                workers, [&](const WorkerMetrics& w) -> auto& { return w.reauthentications[i]; }));
  }
  for (const Direction direction : kDirections) {
    const size_t d = At(direction);
    // Ended before began, for the reason that AddConnections has.
    const uint64_t ended = Sum(
        workers, [&](const WorkerMetrics& w) -> auto& { return w.past_expiry_ended[d]; });
    const uint64_t began = Sum(
        workers, [&](const WorkerMetrics& w) -> auto& { return w.past_expiry_began[d]; });
    out.Add(Metric::kConnectionsPastExpiry, {Token(direction)}, began > ended ? began - ended : 0);
  }
}

void AddDestinations(const Workers& workers, Exposition& out) {
  for (size_t i = 0; i < kRequestProtocolCount; ++i) {
    out.Add(Metric::kProxyRequests, {Token(static_cast<RequestProtocol>(i))},
            Sum(
                workers, [&](const WorkerMetrics& w) -> auto& { return w.proxy_requests[i]; }));
  }
  for (size_t i = 0; i < kNameResultCount; ++i) {
    out.Add(Metric::kNameLookups, {Token(static_cast<NameResult>(i))},
            Sum(
                workers, [&](const WorkerMetrics& w) -> auto& { return w.names[i]; }));
  }
  for (const CloseReason reason : base::kAllCloseReasons) {
    const uint64_t retries = Sum(
        workers, [&](const WorkerMetrics& w) -> auto& { return w.endpoint_retries[At(reason)]; });
    if (retries > 0 || reason == CloseReason::kConnectFailed) {
      out.Add(Metric::kEndpointRetries, {Token(reason)}, retries);
    }
  }
  out.Add(Metric::kEndpointFailures, {},
          Sum(
              workers, [](const WorkerMetrics& w) -> auto& { return w.endpoint_failures; }));
  // Ended before began, for the reason that AddConnections has.
  const uint64_t ended = Sum(
      workers, [](const WorkerMetrics& w) -> auto& { return w.endpoints_failing_ended; });
  const uint64_t began = Sum(
      workers, [](const WorkerMetrics& w) -> auto& { return w.endpoints_failing_began; });
  out.Add(Metric::kEndpointsFailing, {}, began > ended ? began - ended : 0);
}

void AddWorkers(const Workers& workers, Exposition& out) {
  for (const Direction direction : kDirections) {
    AddConnections(workers, direction, out);
    AddHandshakes(workers, direction, out);
  }
  for (size_t i = 0; i < kPlaintextReasonCount; ++i) {
    out.Add(Metric::kPlaintextConnections, {Token(static_cast<PlaintextReason>(i))},
            Sum(
                workers, [&](const WorkerMetrics& w) -> auto& { return w.plaintext[i]; }));
  }
  for (size_t i = 0; i < kTicketRefusalCount; ++i) {
    out.Add(Metric::kTicketsRefused, {Token(static_cast<TicketRefusal>(i))},
            Sum(
                workers, [&](const WorkerMetrics& w) -> auto& { return w.tickets_refused[i]; }));
  }
  AddReauthentications(workers, out);
  AddDestinations(workers, out);
  out.AddHistogram(Metric::kSniffSeconds, {},
                   Times(
                       workers, [](const WorkerMetrics& w) -> auto& { return w.sniff_seconds; }));
  out.Add(Metric::kAcceptErrors, {},
          Sum(
              workers, [](const WorkerMetrics& w) -> auto& { return w.accept_errors; }));
  out.Add(Metric::kAcceptPaused, {},
          Sum(
              workers, [](const WorkerMetrics& w) -> auto& { return w.accept_paused; }));
}

void AddExpiries(std::vector<IdentityGauges::Expiry> expiries, Exposition& out) {
  // The soonest first, so that those are shown when there are too many; each series once.
  std::ranges::stable_sort(expiries, {}, &IdentityGauges::Expiry::not_after);
  absl::flat_hash_set<std::string> seen;
  for (const IdentityGauges::Expiry& expiry : expiries) {
    if (seen.size() >= kMaxExpirySeries) {
      break;
    }
    if (seen.insert(absl::StrCat(expiry.kind, "/", expiry.sha256)).second) {
      out.Add(Metric::kCertificateNotAfter, {expiry.kind, expiry.sha256},
              absl::ToDoubleSeconds(expiry.not_after - absl::UnixEpoch()));
    }
  }
}

void AddIdentity(const IdentityGauges& identity, Exposition& out) {
  AddExpiries(identity.expiries, out);
  out.Add(Metric::kRenewals, {"ok"}, identity.renewals_ok);
  out.Add(Metric::kRenewals, {"failed"}, identity.renewals_failed);
  out.Add(Metric::kBundleVersion, {"epoch"}, identity.bundle_epoch);
  out.Add(Metric::kBundleVersion, {"sequence"}, identity.bundle_sequence);
  out.Add(Metric::kPolicyVersion, {"epoch"}, identity.policy_epoch);
  out.Add(Metric::kPolicyVersion, {"sequence"}, identity.policy_sequence);
  out.Add(Metric::kBundleAge, {}, identity.bundle_age_seconds);
  out.Add(Metric::kClockSkew, {}, identity.clock_skew_seconds);
  out.Add(Metric::kIssuerConnected, {}, identity.issuer_connected ? 1.0 : 0.0);
  out.Add(Metric::kFileReloadFailures, {}, identity.reload_failures);
  for (const auto& [what, age] : identity.trust_ages) {
    out.Add(Metric::kTrustAge, {what}, age);
  }
  out.Add(Metric::kTrustStale, {}, identity.trust_is_stale ? 1.0 : 0.0);
  out.Add(Metric::kRevocationVersion, {"epoch"}, identity.revocation_epoch);
  out.Add(Metric::kRevocationVersion, {"sequence"}, identity.revocation_sequence);
  out.Add(Metric::kRevocations, {"issuer"}, identity.revocations);
  out.Add(Metric::kRevocations, {"crl"}, identity.crl_entries);
  out.Add(Metric::kCrlsStale, {}, identity.crls_stale);
  out.Add(Metric::kRootsAging, {}, identity.roots_past_half_life);
}

void AddProcess(Exposition& out) {
  const ProcessStats stats = ReadProcessStats();
  out.AddIfKnown(Metric::kProcessCpu, stats.cpu_seconds);
  out.AddIfKnown(Metric::kProcessResident, stats.resident_bytes);
  out.AddIfKnown(Metric::kProcessVirtual, stats.virtual_bytes);
  out.AddIfKnown(Metric::kProcessOpenFds, stats.open_fds);
  out.AddIfKnown(Metric::kProcessMaxFds, stats.max_fds);
  out.AddIfKnown(Metric::kProcessThreads, stats.threads);
  out.AddIfKnown(Metric::kProcessStart, stats.start_time_seconds);
}

}  // namespace

struct MetricsRegistry::Impl {
  MetricsSources sources;
};

MetricsRegistry::MetricsRegistry(MetricsSources sources)
    : impl_(std::make_unique<Impl>(Impl{std::move(sources)})) {}

MetricsRegistry::~MetricsRegistry() = default;

std::string MetricsRegistry::Scrape() {
  const MetricsSources& sources = impl_->sources;
  Exposition out;
  AddWorkers(sources.workers, out);
  AddIdentity(sources.identity ? sources.identity() : IdentityGauges(), out);
  out.Add(Metric::kReady, {}, sources.ready && sources.ready() ? 1.0 : 0.0);
  if (const auto caught = sources.intercept_ok ? sources.intercept_ok() : std::nullopt) {
    out.Add(Metric::kInterceptOk, {}, *caught ? 1.0 : 0.0);
  }
  out.Add(Metric::kTlsOnlyTunnels, {}, uint64_t{sources.tls_only_tunnels});
  out.Add(Metric::kAccessLogDropped, {},
          sources.access_log_dropped ? sources.access_log_dropped() : uint64_t{0});
  out.Add(Metric::kLogDropped, {}, base::DroppedLogLines());
  out.Add(Metric::kBuildInfo, {POSTERN_VERSION}, 1.0);
  AddProcess(out);
  return out.Text();
}

}  // namespace postern::telemetry
