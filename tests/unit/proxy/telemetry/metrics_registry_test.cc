// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/metrics_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <string>

#include "common/base/strings.h"
#include "proxy/telemetry/metric_names.h"
#include "proxy/telemetry/process_metrics.h"

namespace postern::telemetry {
namespace {

using base::CloseReason;
using testing::HasSubstr;
using testing::Not;

constexpr size_t kIn = 0;
constexpr size_t kOut = 1;
constexpr auto kPeerExpired = static_cast<size_t>(CloseReason::kPeerExpired);

size_t CountSeries(const std::string& text) {
  size_t series = 0;
  for (const std::string_view line : base::Split(text, '\n')) {
    series += !line.empty() && line.front() != '#' ? 1 : 0;
  }
  return series;
}

TEST(MetricsRegistryTest, SumsTheWorkers) {
  WorkerMetrics first;
  WorkerMetrics second;
  first.opened[kIn].Add(2);
  second.opened[kIn].Add(3);
  first.closed[kIn][kPeerExpired].Add(1);
  second.bytes[kOut][1].Add(5'000'000'000);
  MetricsSources sources;
  sources.workers = {&first, &second};
  const std::string text = MetricsRegistry(sources).Scrape();
  EXPECT_THAT(text, HasSubstr("postern_connections_opened_total{direction=\"inbound\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("postern_connections_closed_total{direction=\"inbound\","
                              "reason=\"peer_expired\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("postern_connections_open{direction=\"inbound\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("postern_bytes_total{direction=\"outbound\",from=\"upstream\"} "
                              "5000000000\n"));
}

TEST(MetricsRegistryTest, ShowsEveryMetricFromTheStart) {
  const std::string text = MetricsRegistry(MetricsSources()).Scrape();
  for (const MetricInfo& metric : kMetrics) {
    if (metric.name == Info(Metric::kCertificateNotAfter).name ||
        metric.name == Info(Metric::kTrustAge).name ||
        metric.name == Info(Metric::kInterceptOk).name) {
      continue;  // no certificate yet; no issuer to confirm anything; no interception
    }
    EXPECT_THAT(text, HasSubstr("# TYPE " + std::string(metric.name) + " "));
    EXPECT_THAT(text, HasSubstr("# HELP " + std::string(metric.name) + " "));
  }
  EXPECT_THAT(text, HasSubstr("postern_plaintext_connections_total{reason=\"server_first\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("postern_tls_handshake_failures_total{direction=\"inbound\","
                              "reason=\"peer_untrusted\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("security=\"none\"")));
}

TEST(MetricsRegistryTest, SaysOfInterceptionOnlyWhatIsKnown) {
  MetricsSources sources;
  std::optional<bool> caught;
  sources.intercept_ok = [&caught] { return caught; };
  MetricsRegistry registry(sources);
  EXPECT_THAT(registry.Scrape(), Not(HasSubstr("postern_intercept_ok")));
  caught = true;
  EXPECT_THAT(registry.Scrape(), HasSubstr("\npostern_intercept_ok 1\n"));
  caught = false;
  EXPECT_THAT(registry.Scrape(), HasSubstr("\npostern_intercept_ok 0\n"));
}

TEST(MetricsRegistryTest, NamesAreUniqueAndWellFormed) {
  std::set<std::string_view> names;
  for (const MetricInfo& metric : kMetrics) {
    EXPECT_TRUE(names.insert(metric.name).second) << metric.name;
    EXPECT_TRUE(metric.name.starts_with("postern_") || metric.name.starts_with("process_"));
    EXPECT_EQ(metric.name.ends_with("_total"), metric.kind == MetricKind::kCounter) << metric.name;
    EXPECT_FALSE(metric.help.empty()) << metric.name;
    EXPECT_EQ(metric.help.back(), '.') << metric.name;
  }
}

TEST(MetricsRegistryTest, CountsWhatWasResumedAndWhatWasNot) {
  WorkerMetrics worker;
  worker.handshakes[kIn].Add(5);
  worker.resumed[kIn].Add(3);
  worker.resumed[kOut].Add(2);
  for (size_t i = 0; i < kTicketRefusalCount; ++i) {
    worker.tickets_refused[i].Add(i + 1);
  }
  MetricsSources sources;
  sources.workers = {&worker, &worker};
  const std::string text = MetricsRegistry(sources).Scrape();
  const std::string resumed = "postern_tls_handshakes_resumed_total";
  EXPECT_THAT(text, HasSubstr(resumed + "{direction=\"inbound\"} 6\n"));
  EXPECT_THAT(text, HasSubstr(resumed + "{direction=\"outbound\"} 4\n"));
  const std::string refused = "postern_tls_tickets_refused_total";
  EXPECT_THAT(text, HasSubstr(refused + "{reason=\"unknown_key\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(refused + "{reason=\"changed\"} 4\n"));
  EXPECT_THAT(text, HasSubstr(refused + "{reason=\"expired\"} 6\n"));
  EXPECT_THAT(text, HasSubstr(refused + "{reason=\"malformed\"} 8\n"));
}

TEST(MetricsRegistryTest, WritesACumulativeHistogram) {
  WorkerMetrics worker;
  worker.handshake_seconds[kIn].Observe(std::chrono::microseconds(500));  // exactly on a bound
  worker.handshake_seconds[kIn].Observe(std::chrono::milliseconds(2));
  worker.handshake_seconds[kIn].Observe(std::chrono::seconds(60));
  MetricsSources sources;
  sources.workers = {&worker};
  const std::string text = MetricsRegistry(sources).Scrape();
  const std::string name = "postern_tls_handshake_seconds";
  EXPECT_THAT(text, HasSubstr(name + "_count{direction=\"inbound\"} 3\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{direction=\"inbound\",le=\"0.001\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{direction=\"inbound\",le=\"5\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{direction=\"inbound\",le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr(name + "_sum{direction=\"inbound\"} 60.0025"));
}

TEST(MetricsRegistryTest, ShowsAnUnexpectedReasonOnceItCounts) {
  WorkerMetrics worker;
  worker.handshake_failures[kOut][static_cast<size_t>(CloseReason::kInternal)].Add(1);
  MetricsSources sources;
  sources.workers = {&worker};
  EXPECT_THAT(MetricsRegistry(sources).Scrape(),
              HasSubstr("postern_tls_handshake_failures_total{direction=\"outbound\","
                        "reason=\"internal\"} 1\n"));
}

TEST(MetricsRegistryTest, ReportsTheIdentity) {
  MetricsSources sources;
  sources.identity = [] {
    IdentityGauges gauges;
    gauges.expiries = {{"leaf", "ab12", absl::FromUnixSeconds(1'800'000'000)}};
    gauges.renewals_failed = 2;
    gauges.bundle_epoch = 7;
    gauges.policy_sequence = 9;
    gauges.clock_skew_seconds = -1.5;
    gauges.issuer_connected = true;
    gauges.trust_ages = {{"bundles", 12.5}, {"policy", std::numeric_limits<double>::infinity()}};
    gauges.trust_is_stale = true;
    return gauges;
  };
  sources.ready = [] { return true; };
  sources.access_log_dropped = [] { return uint64_t{4}; };
  sources.tls_only_tunnels = 1;
  const std::string text = MetricsRegistry(sources).Scrape();
  EXPECT_THAT(text, HasSubstr("postern_certificate_not_after_seconds{kind=\"leaf\","
                              "sha256=\"ab12\"} 1800000000\n"));
  EXPECT_THAT(text, HasSubstr("postern_identity_renewals_total{result=\"failed\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("postern_bundle_version{part=\"epoch\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("postern_policy_version{part=\"sequence\"} 9\n"));
  EXPECT_THAT(text, HasSubstr("postern_clock_skew_seconds -1.5\n"));
  EXPECT_THAT(text, HasSubstr("postern_issuer_connected 1\n"));
  EXPECT_THAT(text, HasSubstr("postern_trust_age_seconds{what=\"bundles\"} 12.5\n"));
  EXPECT_THAT(text, HasSubstr("postern_trust_age_seconds{what=\"policy\"} +Inf\n"));
  EXPECT_THAT(text, HasSubstr("postern_trust_stale 1\n"));
  EXPECT_THAT(text, HasSubstr("postern_ready 1\n"));
  EXPECT_THAT(text, HasSubstr("postern_access_log_dropped_total 4\n"));
  EXPECT_THAT(text, HasSubstr("postern_tls_only_tunnels 1\n"));
}

TEST(MetricsRegistryTest, KeepsTheNumberOfSeriesBounded) {
  MetricsSources sources;
  const size_t before = CountSeries(MetricsRegistry(sources).Scrape());
  sources.identity = [] {
    IdentityGauges gauges;
    for (int i = 0; i < 10'000; ++i) {
      gauges.expiries.push_back(
          {"root", std::to_string(i % 5'000), absl::FromUnixSeconds(1'800'000'000 - i)});
    }
    return gauges;
  };
  const std::string text = MetricsRegistry(sources).Scrape();
  EXPECT_LE(CountSeries(text), before + 64);
  EXPECT_THAT(text, HasSubstr("sha256=\"4999\"} 1799990001\n"));  // the soonest is shown
  EXPECT_LT(before, 300u);
}

TEST(MetricsRegistryTest, ReportsTheProcess) {
  const ProcessStats stats = ReadProcessStats();
  ASSERT_TRUE(stats.resident_bytes && stats.virtual_bytes && stats.open_fds && stats.max_fds);
  EXPECT_GT(*stats.resident_bytes, 100'000u);
  EXPECT_GE(*stats.virtual_bytes, *stats.resident_bytes);
  EXPECT_GE(*stats.open_fds, 3u);
  EXPECT_LT(*stats.open_fds, *stats.max_fds);
  ASSERT_TRUE(stats.threads && stats.start_time_seconds && stats.cpu_seconds);
  EXPECT_GE(*stats.threads, 1u);
  EXPECT_GT(*stats.start_time_seconds, 1.6e9);
}

TEST(MetricsRegistryTest, ReadsAProcessNameThatLooksLikeFields) {
  const std::string stat =
      "42 (a) R 9 (b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 1000 8192 2 0 0\n";
  const ProcessStats stats = ParseProcStat(stat, 100, 4096, 1'000'000);
  EXPECT_EQ(stats.cpu_seconds, 2.0);
  EXPECT_EQ(stats.threads, 3u);
  EXPECT_EQ(stats.start_time_seconds, 1'000'010.0);
  EXPECT_EQ(stats.virtual_bytes, 8192u);
  EXPECT_EQ(stats.resident_bytes, 8192u);
  EXPECT_EQ(ParseProcStat("garbage", 100, 4096, std::nullopt).threads, std::nullopt);
}

TEST(MetricsRegistryTest, ReferenceHasARowForEachMetricAndReason) {
  const std::string text = MetricsReference();
  for (const MetricInfo& metric : kMetrics) {
    EXPECT_THAT(text, HasSubstr("| `" + std::string(metric.name) + "` |"));
  }
  for (const CloseReason reason : base::kAllCloseReasons) {
    EXPECT_THAT(text, HasSubstr("`" + std::string(Token(reason)) + "`"));
  }
}

}  // namespace
}  // namespace postern::telemetry
