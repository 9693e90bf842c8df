// SPDX-License-Identifier: Apache-2.0
// What is counted of a connection's handshake, and what only some connections have to tell in their
// record.
#include "common/base/enum_index.h"
#include "common/base/strings.h"
#include "proxy/session/session.h"

namespace postern::session {
namespace {

std::optional<telemetry::TicketRefusal> RefusalOf(tls::TicketUse use) {
  switch (use) {
    case tls::TicketUse::kNone:
    case tls::TicketUse::kResumed:
      return std::nullopt;
    case tls::TicketUse::kUnknownKey:
      return telemetry::TicketRefusal::kUnknownKey;
    case tls::TicketUse::kChanged:
      return telemetry::TicketRefusal::kChanged;
    case tls::TicketUse::kExpired:
      return telemetry::TicketRefusal::kExpired;
    case tls::TicketUse::kMalformed:
      return telemetry::TicketRefusal::kMalformed;
  }
  return std::nullopt;
}

}  // namespace

void Session::CountHandshake(tls::TicketUse ticket) {
  const auto took = std::chrono::steady_clock::now() - handshake_began_;
  const size_t direction = base::At(via_.direction);
  telemetry::WorkerMetrics& metrics = worker_.metrics;
  metrics.handshakes[direction].Add(1);
  metrics.handshake_seconds[direction].Observe(took);
  if (ticket == tls::TicketUse::kResumed) {
    metrics.resumed[direction].Add(1);
  } else if (const auto refusal = RefusalOf(ticket); refusal.has_value()) {
    metrics.tickets_refused[base::At(*refusal)].Add(1);
  }
}

Session::Notes& Session::notes() {
  if (notes_ == nullptr) {
    notes_ = std::make_unique<Notes>();
  }
  return *notes_;
}

void Session::NoteAudit(const std::string& rule) {
  if (rule.empty()) {
    return;
  }
  if (notes().audit.empty()) {
    worker_.metrics.audited[base::At(via_.direction)].Add(1);
  }
  notes().audit = rule;
}

void Session::NoteApplicationTls(base::ByteSpan first_bytes) {
  if (first_bytes.empty() || first_bytes.front() != tls::kHandshakeRecord) {
    return;
  }
  const tls::SniffResult sniffed = tls::SniffClientHello(first_bytes);
  if (sniffed.verdict == tls::SniffVerdict::kClientHello) {
    NoteApplicationTls(sniffed.hello);
  }
}

void Session::NoteApplicationTls(const tls::ClientHello& hello) {
  notes().application_sni = hello.sni;
  std::string& alpn = notes().application_alpn;
  alpn.clear();
  for (const std::string& protocol : hello.alpn) {
    base::StrAppend(alpn, alpn.empty() ? "" : ",", protocol);
  }
}

}  // namespace postern::session
