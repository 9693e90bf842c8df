// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/bytes.h"
#include "common/base/enum_index.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/base/time_text.h"
#include "proxy/telemetry/access_record.h"
#include "proxy/telemetry/json_writer.h"
#include "proxy/telemetry/tls_alerts.h"

namespace postern::telemetry {
namespace {

using base::CloseReason;

constexpr uint32_t kLinesPerSecond = 5;  // of one reason
constexpr size_t kMaxDetail = 2048;

// Everyday ends of connections, which deserve no warning.
bool IsEveryday(CloseReason reason) {
  return reason == CloseReason::kReset || reason == CloseReason::kIdleTimeout ||
         reason == CloseReason::kDrainDeadline;
}

void AppendAlert(JsonObject& json, std::string_view key, int alert) {
  if (alert >= 0) {
    json.Number(key, alert);
    json.TextIfAny(base::StrCat(key, "_name"), TlsAlertName(alert));
  }
}

void AppendFailure(const AccessRecord& record, std::string& out) {
  const base::Failure& end = record.end;
  JsonObject json(out);
  json.Text("time", base::EventTimeText(record.ended()));
  json.Unsigned("connection", record.connection_id);
  json.Text("direction", Token(record.direction));
  json.Text("side", Token(end.side));
  json.Text("reason", Token(end.reason));
  json.Text("what", Describe(end.reason));
  json.TextIfAny("detail", base::Message(end.detail).substr(0, kMaxDetail));
  json.TextIfAny("mend", Mend(end.reason));
  json.TextIfAny("peer_id", end.peer_id.empty() ? record.peer_id : end.peer_id);
  json.TextIfAny("local_id", record.local_id);
  json.TextIfAny("tunnel", record.tunnel);
  json.Text("downstream", record.downstream_address);
  json.Text("destination", record.destination);
  json.TextIfAny("upstream", record.upstream_address);
  json.TextIfAny("policy_rule", record.policy_rule);
  if (end.x509_error != 0) {
    json.Number("x509_error", end.x509_error);
    json.Number("x509_depth", end.x509_depth);
  }
  AppendAlert(json, "alert_sent", end.alert_sent);
  AppendAlert(json, "alert_received", end.alert_received);
}

void LogFailure(const AccessRecord& record) {
  const base::Failure& end = record.end;
  const std::string& peer = end.peer_id.empty() ? record.peer_id : end.peer_id;
  const auto level = IsEveryday(end.reason) ? spdlog::level::info : spdlog::level::warn;
  spdlog::log(level, "{} connection {} from {} to {} ended: {} ({}, {}){}{}{}{}",
              Token(record.direction), record.connection_id,
              base::Printable(record.downstream_address), base::Printable(record.destination),
              Describe(end.reason), Token(end.reason), Token(end.side),
              peer.empty() ? "" : "; peer ", base::Printable(peer),
              base::Message(end.detail).empty() ? "" : "; ",
              base::LineSafe(base::Message(end.detail), 512));
}

// Lets the first lines of each second through. Any thread; a little generous when threads race.
class LineBudget {
 public:
  struct Verdict {
    bool log = false;
    uint32_t suppressed = 0;  // in the window that just ended
  };

  Verdict Ask(int64_t second) {
    Verdict verdict;
    int64_t window = window_.load(std::memory_order_relaxed);
    if (window != second && window_.compare_exchange_strong(window, second)) {
      const uint32_t asked = asked_.exchange(0, std::memory_order_relaxed);
      verdict.suppressed = asked > kLinesPerSecond ? asked - kLinesPerSecond : 0;
    }
    verdict.log = asked_.fetch_add(1, std::memory_order_relaxed) < kLinesPerSecond;
    return verdict;
  }

 private:
  std::atomic<int64_t> window_{-1};
  std::atomic<uint32_t> asked_{0};
};

}  // namespace

struct FailureRing::Impl {
  explicit Impl(size_t limit) : capacity(limit) {}

  const size_t capacity;
  std::array<LineBudget, base::kCloseReasonCount> budgets;
  // Held for a few pointer moves only: the records are made and read outside of it.
  mutable std::mutex mutex;
  std::deque<std::shared_ptr<const AccessRecord>> newest_first;
};

FailureRing::FailureRing(size_t capacity) : impl_(std::make_unique<Impl>(capacity)) {}

FailureRing::~FailureRing() = default;

void FailureRing::Add(const AccessRecord& record) {
  const CloseReason reason = record.end.reason;
  if (reason == CloseReason::kOk || impl_->capacity == 0) {
    return;
  }
  const LineBudget::Verdict verdict =
      impl_->budgets[base::At(reason)].Ask(absl::ToUnixSeconds(absl::Now()));
  if (verdict.suppressed > 0) {
    spdlog::warn("{} more failures with reason {} were not logged one by one; see the metrics",
                 verdict.suppressed, Token(reason));
  }
  if (verdict.log) {
    LogFailure(record);
  }
  auto kept = std::make_shared<const AccessRecord>(record);
  std::shared_ptr<const AccessRecord> oldest;  // freed after the lock
  const std::lock_guard lock(impl_->mutex);
  if (impl_->newest_first.size() >= impl_->capacity) {
    oldest = std::move(impl_->newest_first.back());
    impl_->newest_first.pop_back();
  }
  impl_->newest_first.push_front(std::move(kept));
}

std::string FailureRing::ToJson() const {
  std::vector<std::shared_ptr<const AccessRecord>> records;
  {
    const std::lock_guard lock(impl_->mutex);
    records.assign(impl_->newest_first.begin(), impl_->newest_first.end());
  }
  std::string out = "[";
  for (const auto& record : records) {
    if (out.size() > 1) {
      out += ',';
    }
    AppendFailure(*record, out);
  }
  out += ']';
  return out;
}

}  // namespace postern::telemetry
