// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/failure.h"
#include "proxy/telemetry/worker_metrics.h"

namespace postern::telemetry {

// One line of the access log: made at the end of every connection, whatever its end.
struct AccessRecord {
  uint64_t connection_id = 0;
  absl::Time opened;
  std::chrono::microseconds duration{0};
  base::Direction direction = base::Direction::kInbound;
  Security security = Security::kNone;
  std::string tunnel;              // name, empty without one
  std::string downstream_address;  // who connected
  std::string destination;         // what they wanted: original destination or tunnel target
  std::string upstream_address;    // what was dialled; empty if nothing was
  std::string local_id, peer_id;   // SPIFFE IDs; empty where unknown
  std::string tls_version, tls_cipher, tls_group, sni, alpn;
  bool tls_resumed = false;
  uint32_t reauthentications = 0;  // times that the peer has shown a renewed certificate
  uint64_t bytes_from_downstream = 0;
  uint64_t bytes_from_upstream = 0;
  std::string policy_rule;
  std::string policy_audit;  // what in audit mode would have refused it; empty: nothing
  // What the ClientHello of the application's own TLS asks for; empty where there is none. ALPN as
  // it was offered, separated by commas.
  std::string application_sni, application_alpn;
  base::Failure end;  // reason kOk when all went well

  // When its connection ended, which is when it was made.
  absl::Time ended() const { return opened + absl::FromChrono(duration); }
};

// Writes records as JSON lines from a thread of its own. Add never blocks: when the queue is full
// the record is dropped and counted. Any thread.
class AccessLog {
 public:
  // `target`: a path (opened for appending, 0640; reopened by Reopen), "-" for standard output, ""
  // for none. Unavailable names the path.
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(const std::string& target);
  ~AccessLog();  // writes out what is queued

  void Add(AccessRecord record);
  void Reopen();  // after logrotate moved the file away
  uint64_t dropped() const;

  // The line without its newline. Every string of a peer is escaped.
  static std::string ToJson(const AccessRecord& record);

 private:
  struct Impl;
  explicit AccessLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The last failures, for /failures: a bounded ring, newest first. Any thread; rate-limited per
// reason and second in the log, never in the counts.
class FailureRing {
 public:
  explicit FailureRing(size_t capacity = 256);
  ~FailureRing();
  void Add(const AccessRecord& record);
  // JSON array: time, direction, side, reason, what happened, detail, mend, peer_id, addresses,
  // x509 error (number and text) and depth, alerts (number and name).
  std::string ToJson() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::telemetry
