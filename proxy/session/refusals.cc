// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/refusals.h"

#include <utility>

#include "common/base/enum_index.h"
#include "common/base/strings.h"
#include "proxy/session/session_table.h"

namespace postern::session {
namespace {

constexpr std::chrono::milliseconds kWindow{1000};
constexpr uint32_t kRecordsInWindow = 10;

}  // namespace

void Refusals::Add(const ListenerSpec& via, const net::SocketAddress& peer,
                   base::CloseReason reason, std::string_view why) {
  if (MayRecord()) {
    Record(via, peer, reason, why);
  }
  // Last: who sees the count finds the record.
  const auto direction = base::At(via.direction);
  telemetry::WorkerMetrics& metrics = worker_.metrics;
  metrics.opened[direction].Add(1);
  metrics.secured[direction][base::At(telemetry::Security::kNone)].Add(1);
  metrics.closed[direction][base::At(reason)].Add(1);
}

bool Refusals::MayRecord() {
  const std::chrono::milliseconds now = worker_.loop.Now();
  if (now - window_began_ >= kWindow) {
    window_began_ = now;
    recorded_ = 0;
  }
  return recorded_++ < kRecordsInWindow;
}

void Refusals::Record(const ListenerSpec& via, const net::SocketAddress& peer,
                      base::CloseReason reason, std::string_view why) {
  telemetry::AccessRecord record;
  record.connection_id = worker_.table.NextId();
  record.opened = worker_.shared.clock->Now();
  record.direction = via.direction;
  record.security = telemetry::Security::kNone;
  if (via.tunnel != nullptr) {
    record.tunnel = via.name;
    record.destination = via.tunnel->target.ToString();
  }
  record.downstream_address = peer.ToString();
  record.end.reason = reason;
  record.end.side = base::Side::kDownstream;
  record.end.detail = absl::ResourceExhaustedError(base::ToAbsl(why));
  if (worker_.shared.failures != nullptr) {
    worker_.shared.failures->Add(record);
  }
  if (worker_.shared.access_log != nullptr) {
    worker_.shared.access_log->Add(std::move(record));
  }
}

}  // namespace postern::session
