// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <string_view>

#include "absl/strings/str_join.h"
#include "common/base/strings.h"
#include "proxy/telemetry/metric_names.h"
#include "proxy/telemetry/metrics_registry.h"

namespace postern::telemetry {
namespace {

std::string_view KindName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kHistogram:
      return "histogram";
  }
  return "";
}

template <typename Enum, size_t N>
std::string EveryToken() {
  std::string list;
  for (size_t i = 0; i < N; ++i) {
    base::StrAppend(list, i == 0 ? "" : ", ", "`", Token(static_cast<Enum>(i)), "`");
  }
  return list;
}

std::string LabelTable() {
  return base::StrCat(
      "| label | values |\n|---|---|\n"
      "| `direction` | ",
      EveryToken<base::Direction, base::kDirectionCount>(), " |\n| `from` | ",
      EveryToken<base::Side, base::kSideCount>(),
      ": downstream opened the connection, upstream was dialled |\n| `security` | ",
      EveryToken<Security, kSecurityCount>(),
      " |\n| `reason` of connections, handshakes and retries | ",
      EveryToken<base::CloseReason, base::kCloseReasonCount>(), " |\n| `reason` of plaintext | ",
      EveryToken<PlaintextReason, kPlaintextReasonCount>(),
      " |\n| `kind` | `leaf`, `intermediate`, `root` |\n| `sha256` | of the certificate, hex |\n"
      "| `result` of renewals | `ok`, `failed` |\n| `result` of reauthentications | ",
      EveryToken<ReauthResult, kReauthResultCount>(), " |\n| `result` of name look-ups | ",
      EveryToken<NameResult, kNameResultCount>(), " |\n| `protocol` | ",
      EveryToken<RequestProtocol, kRequestProtocolCount>(),
      " |\n| `part` | `epoch`, `sequence` |\n| `what` | `bundles`, `policy`, `revocations` |\n");
}

}  // namespace

std::string MetricsReference() {
  std::string out =
      "## postern-proxy\n\n"
      "On `/metrics` of `--metrics` (0.0.0.0:15020) in the Prometheus text format 0.0.4. Series "
      "exist from the start with 0, except for certificates. No label holds what a peer chose, so "
      "their number is bounded.\n\n"
      "| metric | type | labels | meaning |\n|---|---|---|---|\n";
  for (const MetricInfo& metric : kMetrics) {
    std::string labels;
    for (const std::string_view label : LabelNames(metric)) {
      base::StrAppend(labels, labels.empty() ? "`" : ", `", label, "`");
    }
    base::StrAppend(out, "| `", metric.name, "` | ", KindName(metric.kind), " | ", labels, " | ",
                    metric.help, " |\n");
  }
  base::StrAppend(out, "\n", LabelTable(),
                  "\nBuckets of the histograms: ", absl::StrJoin(DurationHistogram::kBounds, ", "),
                  " seconds.\n");
  return out;
}

}  // namespace postern::telemetry
