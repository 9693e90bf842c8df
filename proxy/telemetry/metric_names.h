// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/base/strings.h"

namespace postern::telemetry {

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

// Every metric of the proxy, once: the scrape, docs/METRICS.md and the tests are made from this
// list. Names are stable. No label ever holds what a peer chose. X(enumerator, name, kind, labels,
// help).
#define POSTERN_PROXY_METRICS(X)                                                                   \
  X(kConnectionsOpened, "postern_connections_opened_total", kCounter, "direction",                 \
    "Connections accepted from an application or a peer.")                                         \
  X(kConnectionsClosed, "postern_connections_closed_total", kCounter, "direction,reason",          \
    "Connections ended, by the reason why.")                                                       \
  X(kConnectionsOpen, "postern_connections_open", kGauge, "direction",                             \
    "Connections open now: opened minus closed.")                                                  \
  X(kConnectionsSecured, "postern_connections_secured_total", kCounter, "direction,security",      \
    "Connections by how their mesh side is protected, counted once that is known.")                \
  X(kBytes, "postern_bytes_total", kCounter, "direction,from",                                     \
    "Bytes of application data relayed, by the side that sent them.")                              \
  X(kHandshakes, "postern_tls_handshakes_total", kCounter, "direction",                            \
    "TLS handshakes completed.")                                                                   \
  X(kHandshakesResumed, "postern_tls_handshakes_resumed_total", kCounter, "direction",             \
    "Of the completed TLS handshakes, those that resumed a session.")                              \
  X(kTicketsRefused, "postern_tls_tickets_refused_total", kCounter, "reason",                      \
    "Session tickets of clients that were not taken, so that a full handshake followed.")          \
  X(kHandshakeFailures, "postern_tls_handshake_failures_total", kCounter, "direction,reason",      \
    "TLS handshakes that failed, by the reason why.")                                              \
  X(kHandshakeSeconds, "postern_tls_handshake_seconds", kHistogram, "direction",                   \
    "Time from the first byte of a TLS handshake to its completion.")                              \
  X(kReauthentications, "postern_reauthentications_total", kCounter, "result",                     \
    "Clients that proved their identity again inside an open connection, and what came of it; "    \
    "answered: this proxy was the client.")                                                        \
  X(kConnectionsPastExpiry, "postern_connections_past_peer_expiry", kGauge, "direction",           \
    "Connections open now although the certificate that the peer has shown has expired.")          \
  X(kPlaintextConnections, "postern_plaintext_connections_total", kCounter, "reason",              \
    "Connections that Postern did not encrypt, by the reason why.")                                \
  X(kPolicyDenied, "postern_policy_denied_total", kCounter, "direction",                           \
    "Connections that authorisation policy refused.")                                              \
  X(kAcceptErrors, "postern_accept_errors_total", kCounter, "",                                    \
    "Failures of accept(), such as no file descriptor being left.")                                \
  X(kAcceptPaused, "postern_accept_paused_total", kCounter, "",                                    \
    "Times that accepting stopped because the connection limit was reached.")                      \
  X(kTlsOnlyTunnels, "postern_tls_only_tunnels", kGauge, "",                                       \
    "Tunnels that ask their clients for no certificate (client-auth=none).")                       \
  X(kInterceptOk, "postern_intercept_ok", kGauge, "",                                              \
    "1 while the proxy's own probes find the interception rules in force, 0 while not; absent "    \
    "without interception and before the first probe.")                                            \
  X(kReady, "postern_ready", kGauge, "",                                                           \
    "1 while certificate, bundle, policy and listeners are all in place, else 0.")                 \
  X(kCertificateNotAfter, "postern_certificate_not_after_seconds", kGauge, "kind,sha256",          \
    "When a certificate in use expires, in seconds since the epoch.")                              \
  X(kRenewals, "postern_identity_renewals_total", kCounter, "result",                              \
    "Attempts to get or renew the certificate of this workload.")                                  \
  X(kBundleVersion, "postern_bundle_version", kGauge, "part",                                      \
    "Version of the trust bundles in force: the issuer's store epoch and the sequence in it.")     \
  X(kPolicyVersion, "postern_policy_version", kGauge, "part",                                      \
    "Version of the policy in force: the issuer's store epoch and the sequence in it.")            \
  X(kBundleAge, "postern_bundle_age_seconds", kGauge, "",                                          \
    "Time since the issuer last confirmed the trust bundles; 0 with bundles from files.")          \
  X(kClockSkew, "postern_clock_skew_seconds", kGauge, "",                                          \
    "This host's clock minus the issuer's, as its last reply showed it.")                          \
  X(kIssuerConnected, "postern_issuer_connected", kGauge, "",                                      \
    "1 while the stream to the issuer is up; 0 also with identity from files.")                    \
  X(kFileReloadFailures, "postern_file_reload_failures_total", kCounter, "",                       \
    "Changed files that did not load; what was in force before goes on.")                          \
  X(kTrustAge, "postern_trust_age_seconds", kGauge, "what",                                        \
    "Time since the issuer last confirmed what this proxy holds of a kind; +Inf: never.")          \
  X(kTrustStale, "postern_trust_stale", kGauge, "",                                                \
    "1 while new connections are refused because of --max-stale, else 0.")                         \
  X(kAccessLogDropped, "postern_access_log_dropped_total", kCounter, "",                           \
    "Access log records dropped because writing was slower than connections ended.")               \
  X(kLogDropped, "postern_log_dropped_total", kCounter, "",                                        \
    "Log lines dropped because the log's queue was full.")                                         \
  X(kBuildInfo, "postern_build_info", kGauge, "version", "Always 1; the label tells the version.") \
  X(kProcessCpu, "process_cpu_seconds_total", kCounter, "",                                        \
    "User and system CPU time spent by the process.")                                              \
  X(kProcessResident, "process_resident_memory_bytes", kGauge, "", "Resident memory.")             \
  X(kProcessVirtual, "process_virtual_memory_bytes", kGauge, "", "Virtual memory.")                \
  X(kProcessOpenFds, "process_open_fds", kGauge, "", "Open file descriptors.")                     \
  X(kProcessMaxFds, "process_max_fds", kGauge, "", "Limit of open file descriptors.")              \
  X(kProcessThreads, "process_threads", kGauge, "", "Threads of the process.")                     \
  X(kProcessStart, "process_start_time_seconds", kGauge, "",                                       \
    "When the process started, in seconds since the epoch.")                                       \
  X(kRevocationVersion, "postern_revocation_version", kGauge, "part",                              \
    "Version of the issuer's list of revocations in force: its store epoch and the sequence in "   \
    "it; 0 before the first.")                                                                     \
  X(kRevocations, "postern_revocations", kGauge, "source",                                         \
    "What is revoked: entries of the issuer's list, and of the CRLs of files.")                    \
  X(kCrlsStale, "postern_crls_stale", kGauge, "",                                                  \
    "CRLs past their nextUpdate: new connections with certificates of their CAs are refused.")     \
  X(kRootsAging, "postern_roots_past_half_life", kGauge, "",                                       \
    "Roots of the trust bundles that have outlived half of their life; the log names them.")       \
  X(kProxyRequests, "postern_proxy_requests_total", kCounter, "protocol",                          \
    "Requests at outbound proxy ports, by how they were made.")                                    \
  X(kNameLookups, "postern_name_lookups_total", kCounter, "result",                                \
    "Host names that were resolved, by what came of it; stale: an older answer was used because "  \
    "the new one failed or was late.")                                                             \
  X(kEndpointRetries, "postern_endpoint_retries_total", kCounter, "reason",                        \
    "Connections that went on to another endpoint, by why the one before it failed.")              \
  X(kEndpointFailures, "postern_endpoint_failures_total", kCounter, "",                            \
    "Failed connects and handshakes to endpoints that there is a choice of.")                      \
  X(kEndpointsFailing, "postern_endpoints_failing", kGauge, "",                                    \
    "Endpoints, summed over the workers, whose last connect or handshake failed.")                 \
  X(kPolicyAuditDenied, "postern_policy_audit_denied_total", kCounter, "direction",                \
    "Connections that were let in although policy in audit mode would have refused them.")         \
  X(kSniffSeconds, "postern_sniff_seconds", kHistogram, "",                                        \
    "On permissive ports, time from the accept until it was known what the connection is.")

enum class Metric : uint8_t {
#define X(enumerator, name, kind, labels, help) enumerator,
  POSTERN_PROXY_METRICS(X)
#undef X
};

struct MetricInfo {
  std::string_view name;
  MetricKind kind;
  std::string_view labels;  // names separated by commas, in the order of their values
  std::string_view help;
};

inline constexpr auto kMetrics = std::to_array<MetricInfo>({
#define X(enumerator, name, kind, labels, help) {name, MetricKind::kind, labels, help},
    POSTERN_PROXY_METRICS(X)
#undef X
});

inline std::vector<std::string_view> LabelNames(const MetricInfo& metric) {
  return metric.labels.empty() ? std::vector<std::string_view>() : base::Split(metric.labels, ',');
}

constexpr const MetricInfo& Info(Metric metric) {
  return kMetrics[static_cast<size_t>(metric)];
}

}  // namespace postern::telemetry
