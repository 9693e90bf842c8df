// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string_view>

#include "common/base/close_reason.h"
#include "common/base/failure.h"

namespace postern::telemetry {

// How a connection is protected on its mesh side.
enum class Security : uint8_t {
  kMutualTls,
  kTlsOnly,  // client-auth=none
  kPlaintext,
  kApplicationTls,  // the application's own TLS, passed through
  kNone,            // ended before it was known
};
inline constexpr size_t kSecurityCount = 5;
std::string_view Token(Security security) noexcept;

// Why a connection is plaintext.
enum class PlaintextReason : uint8_t {
  kNotInMesh,       // outbound: the destination is not of the mesh
  kPermissive,      // inbound: a plaintext client on a permissive port
  kDisabled,        // inbound: the port's mode is disabled
  kApplicationTls,  // the application's own TLS on a permissive port or outbound
  kServerFirst,     // permissive: the client was silent, the server was let speak
  kOpaque,          // inbound: the port is declared opaque
  kSkipped,         // inbound: the port is declared skipped
  kProbe,           // inbound: a ProbeExemption names the client and the port
};
inline constexpr size_t kPlaintextReasonCount = 8;
std::string_view Token(PlaintextReason reason) noexcept;

// Why a session ticket that a client offered was not taken; a full handshake followed.
enum class TicketRefusal : uint8_t {
  kUnknownKey,  // of another proxy, or given before this one's last renewal or change of trust
  kChanged,     // bundles, policy or revocations have changed, or it is another listener's
  kExpired,     // past its deadline, or the client's certificate is
  kMalformed,
};
inline constexpr size_t kTicketRefusalCount = 4;
std::string_view Token(TicketRefusal refusal) noexcept;

// What became of proving a client's identity again inside an open connection.
enum class ReauthResult : uint8_t {
  kRenewed,    // inbound: the client has shown a certificate that lasts longer
  kUnchanged,  // inbound: it has answered, but had nothing that lasts longer
  kFailed,     // inbound: the answer was refused, and the connection ended
  kAnswered,   // outbound: we have answered a server
};
inline constexpr size_t kReauthResultCount = 4;
std::string_view Token(ReauthResult result) noexcept;

// How a client of an outbound proxy port has asked.
enum class RequestProtocol : uint8_t { kSocks5, kHttpConnect };
inline constexpr size_t kRequestProtocolCount = 2;
std::string_view Token(RequestProtocol protocol) noexcept;

// What came of resolving a host name.
enum class NameResult : uint8_t {
  kResolved,
  kNotFound,  // there is no such name
  kFailed,    // nobody could say
  kStale,     // an older answer was used
};
inline constexpr size_t kNameResultCount = 4;
std::string_view Token(NameResult result) noexcept;

// One counter: written by one worker thread, read by the scrape. Relaxed atomics without a locked
// instruction (load, add, store), as there is only one writer.
class Counter {
 public:
  void Add(uint64_t n) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// A histogram of durations with fixed bounds (seconds), one writer.
class DurationHistogram {
 public:
  static constexpr std::array<double, 12> kBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                     0.05,   0.1,   0.25,   0.5,   1.0,  5.0};
  void Observe(std::chrono::nanoseconds duration);
  uint64_t bucket(size_t i) const { return buckets_[i].value(); }  // not cumulative; last is +Inf
  uint64_t sum_nanoseconds() const { return sum_.value(); }

 private:
  std::array<Counter, kBounds.size() + 1> buckets_;
  Counter sum_;
};

// The data path's numbers of one worker. Owned by the worker, which alone writes; the scrape reads
// from another thread and sums over workers. No lock, no allocation, no strings.
struct WorkerMetrics {
  template <size_t N>
  using Counters = std::array<Counter, N>;

  Counters<base::kDirectionCount> opened;
  std::array<Counters<base::kCloseReasonCount>, base::kDirectionCount>
      closed;                                                           // [direction][reason]
  std::array<Counters<kSecurityCount>, base::kDirectionCount> secured;  // once known
  // Bytes of application data, by who sent them.
  std::array<Counters<base::kSideCount>, base::kDirectionCount> bytes;  // [direction][from side]
  Counters<base::kDirectionCount> handshakes;                           // completed
  Counters<base::kDirectionCount> resumed;                              // of these
  Counters<kTicketRefusalCount> tickets_refused;                        // inbound
  std::array<Counters<base::kCloseReasonCount>, base::kDirectionCount> handshake_failures;
  std::array<DurationHistogram, base::kDirectionCount> handshake_seconds;
  Counters<kPlaintextReasonCount> plaintext;
  Counters<base::kDirectionCount> denied;   // by policy
  Counters<base::kDirectionCount> audited;  // let in, though policy in audit mode would not
  DurationHistogram sniff_seconds;          // permissive ports: until it was known what comes
  Counters<kReauthResultCount> reauthentications;
  Counters<base::kDirectionCount> past_expiry_began;  // connections that outlive their peer's
  Counters<base::kDirectionCount> past_expiry_ended;  // certificate: the difference is how many
  Counters<kRequestProtocolCount> proxy_requests;
  Counters<kNameResultCount> names;
  Counters<base::kCloseReasonCount> endpoint_retries;  // by why the endpoint before it failed
  Counter endpoint_failures;                           // of endpoints that there is a choice of
  Counter endpoints_failing_began;                     // the difference is how many are now
  Counter endpoints_failing_ended;
  Counter accept_errors;
  Counter accept_paused;  // times the connection limit stopped accepting
};

}  // namespace postern::telemetry
