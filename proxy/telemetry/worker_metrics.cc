// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/worker_metrics.h"

namespace postern::telemetry {

std::string_view Token(RequestProtocol protocol) noexcept {
  return protocol == RequestProtocol::kSocks5 ? "socks5" : "http_connect";
}

std::string_view Token(NameResult result) noexcept {
  switch (result) {
    case NameResult::kResolved:
      return "resolved";
    case NameResult::kNotFound:
      return "not_found";
    case NameResult::kFailed:
      return "failed";
    case NameResult::kStale:
      return "stale";
  }
  return "failed";
}

std::string_view Token(Security security) noexcept {
  switch (security) {
    case Security::kMutualTls:
      return "mutual_tls";
    case Security::kTlsOnly:
      return "tls_only";
    case Security::kPlaintext:
      return "plaintext";
    case Security::kApplicationTls:
      return "application_tls";
    case Security::kNone:
      return "none";
  }
  return "none";
}

std::string_view Token(PlaintextReason reason) noexcept {
  switch (reason) {
    case PlaintextReason::kNotInMesh:
      return "not_in_mesh";
    case PlaintextReason::kPermissive:
      return "permissive";
    case PlaintextReason::kDisabled:
      return "disabled";
    case PlaintextReason::kApplicationTls:
      return "application_tls";
    case PlaintextReason::kServerFirst:
      return "server_first";
    case PlaintextReason::kOpaque:
      return "opaque";
    case PlaintextReason::kSkipped:
      return "skipped";
    case PlaintextReason::kProbe:
      return "probe";
  }
  return "unknown";
}

std::string_view Token(TicketRefusal refusal) noexcept {
  switch (refusal) {
    case TicketRefusal::kUnknownKey:
      return "unknown_key";
    case TicketRefusal::kChanged:
      return "changed";
    case TicketRefusal::kExpired:
      return "expired";
    case TicketRefusal::kMalformed:
      return "malformed";
  }
  return "unknown";
}

std::string_view Token(ReauthResult result) noexcept {
  switch (result) {
    case ReauthResult::kRenewed:
      return "renewed";
    case ReauthResult::kUnchanged:
      return "unchanged";
    case ReauthResult::kFailed:
      return "failed";
    case ReauthResult::kAnswered:
      return "answered";
  }
  return "unknown";
}

void DurationHistogram::Observe(std::chrono::nanoseconds duration) {
  const int64_t nanoseconds = duration.count() < 0 ? 0 : duration.count();
  const double seconds = static_cast<double>(nanoseconds) / 1e9;
  size_t i = 0;
  while (i < kBounds.size() && seconds > kBounds[i]) {
    ++i;
  }
  sum_.Add(static_cast<uint64_t>(nanoseconds));
  buckets_[i].Add(1);
}

}  // namespace postern::telemetry
