// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/x509/revocation_set.h"
#include "control/attest/refusal.h"
#include "control/ca/plugged_ca_keeper.h"
#include "control/federation/foreign_bundles.h"
#include "control/service/staged_rotation.h"

namespace postern::service {

// Every metric of the issuer: X(enumerator, name, type, labels, help). docs/METRICS.md is made from
// this table.
#define POSTERN_ISSUER_METRICS(X)                                                                \
  X(kIssued, "postern_issuer_certificates_issued_total", "counter", "evidence",                  \
    "Certificates issued, by what the caller showed.")                                           \
  X(kRefused, "postern_issuer_refused_total", "counter", "reason",                               \
    "Certificate requests that were refused, by reason.")                                        \
  X(kChallenges, "postern_issuer_challenges_total", "counter", "",                               \
    "Challenges given to callers that mean to show an enrolled key.")                            \
  X(kSeconds, "postern_issuer_certify_seconds", "histogram", "",                                 \
    "Time from a certificate request to its answer.")                                            \
  X(kStreams, "postern_issuer_streams", "gauge", "", "Proxies connected by a mesh stream.")      \
  X(kSubscriptions, "postern_issuer_subscriptions", "gauge", "",                                 \
    "Addresses that connected proxies have asked for.")                                          \
  X(kStreamsRefused, "postern_issuer_streams_refused_total", "counter", "",                      \
    "Mesh streams that were refused: no valid certificate, no entry, or too many.")              \
  X(kConnections, "postern_issuer_connections", "gauge", "",                                     \
    "Connections to the gRPC port that are open, within a second.")                              \
  X(kConnectionsRefused, "postern_issuer_connections_refused_total", "counter", "limit",         \
    "Connections refused because there were too many: in total, or of one source.")              \
  X(kNacks, "postern_issuer_nacks_total", "counter", "",                                         \
    "Versions that a proxy refused to apply.")                                                   \
  X(kStoreErrors, "postern_issuer_store_errors_total", "counter", "",                            \
    "Store operations that failed.")                                                             \
  X(kBundleVersion, "postern_issuer_bundle_version", "gauge", "part",                            \
    "Version of the trust bundle: epoch and sequence.")                                          \
  X(kPolicyVersion, "postern_issuer_policy_version", "gauge", "part",                            \
    "Version of the policy documents: epoch and sequence.")                                      \
  X(kNotAfter, "postern_issuer_certificate_not_after_seconds", "gauge", "kind",                  \
    "Unix time at which a certificate of the issuer ends: root, intermediate, own.")             \
  X(kCaNotAfter, "postern_issuer_ca_not_after_seconds", "gauge", "role,state",                   \
    "Unix time at which each CA ends: root or intermediate; next, current or retired.")          \
  X(kRotationPhase, "postern_issuer_ca_rotation_phase", "gauge", "kind",                         \
    "Of a CA's rotation: 0 none, 1 prepared, 2 active and the old CA not retired.")              \
  X(kNotFollowed, "postern_issuer_ca_not_followed", "gauge", "",                                 \
    "Connected proxies that have not acknowledged the present bundle.")                          \
  X(kRotationBlocked, "postern_issuer_ca_rotation_blocked", "gauge", "",                         \
    "1 while the automatic rotation is due and held up; postern ca status says by what.")        \
  X(kRootKey, "postern_issuer_root_key_present", "gauge", "",                                    \
    "1 while the root's key lies in the state directory; it should be taken offline.")           \
  X(kCaRefused, "postern_issuer_ca_refused_total", "counter", "problem",                         \
    "Contents of --ca-dir that were refused, by problem.")                                       \
  X(kCaRefusing, "postern_issuer_ca_refusing", "gauge", "",                                      \
    "1 while what lies in --ca-dir is refused and the CA before goes on.")                       \
  X(kCaWaiting, "postern_issuer_ca_waiting", "gauge", "",                                        \
    "1 while the new CA of --ca-dir waits until proxies know its root.")                         \
  X(kCaChanges, "postern_issuer_ca_changes_total", "counter", "",                                \
    "Times that another CA of --ca-dir was taken into use.")                                     \
  X(kCaLeaving, "postern_issuer_ca_leaving_roots", "gauge", "",                                  \
    "Roots that --ca-dir names no more, trusted for certificates that still live.")              \
  X(kReady, "postern_issuer_ready", "gauge", "", "1 when the issuer can sign and serve.")        \
  X(kLogDropped, "postern_issuer_log_dropped_total", "counter", "",                              \
    "Log lines lost because the log's queue was full.")                                          \
  X(kFederatedAge, "postern_issuer_federated_bundle_age_seconds", "gauge", "trust_domain",       \
    "Time since the bundle of another trust domain was confirmed by its endpoint; +Inf: never.") \
  X(kFederatedRoots, "postern_issuer_federated_roots", "gauge", "trust_domain",                  \
    "Roots that are held of another trust domain.")                                              \
  X(kFederationFetches, "postern_issuer_federation_fetches_total", "counter",                    \
    "trust_domain,result", "Fetches of another trust domain's bundle, by what came of them.")    \
  X(kBundlesServed, "postern_issuer_bundles_served_total", "counter", "",                        \
    "Bundles that the bundle endpoint gave out.")                                                \
  X(kBuild, "postern_issuer_build_info", "gauge", "version", "Always 1; names the release.")     \
  X(kCpu, "process_cpu_seconds_total", "counter", "", "CPU time of this process.")               \
  X(kResident, "process_resident_memory_bytes", "gauge", "", "Resident memory.")                 \
  X(kOpenFds, "process_open_fds", "gauge", "", "Open file descriptors.")                         \
  X(kRevocationVersion, "postern_issuer_revocation_version", "gauge", "part",                    \
    "Version of the list of revocations: epoch and sequence.")                                   \
  X(kRevocations, "postern_issuer_revocations", "gauge", "kind",                                 \
    "Revocations in force, by what they name.")                                                  \
  X(kRevocationsBehind, "postern_issuer_revocations_not_followed", "gauge", "",                  \
    "Connected proxies that have not acknowledged the present list of revocations.")             \
  X(kStreamsRevoked, "postern_issuer_streams_revoked_total", "counter", "",                      \
    "Mesh streams that were ended because their proxy was revoked.")                             \
  X(kFederatedStale, "postern_issuer_federated_bundle_stale", "gauge", "trust_domain",           \
    "1 while the bundle of another trust domain is older than its max-age.")                     \
  X(kFederatedDistrusted, "postern_issuer_federated_bundle_distrusted", "gauge", "trust_domain", \
    "1 while it is withdrawn from the mesh for that (on-stale=distrust).")                       \
  X(kRootsAging, "postern_issuer_roots_past_half_life", "gauge", "",                             \
    "Roots of this trust domain that have outlived half of their life; postern ca status says "  \
    "what comes next.")

// What a caller showed for its certificate.
enum class EvidenceKind : uint8_t { kJoinToken, kUnixPeer, kExistingCertificate, kEnrolledKey };
inline constexpr size_t kEvidenceKindCount = 4;

// Counted by the handlers, from any thread.
struct IssuerCounters {
  static constexpr std::array<double, 9> kBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01,
                                                    0.025,  0.1,   0.5,    2.5};
  std::array<std::atomic<uint64_t>, kEvidenceKindCount> issued{};
  std::array<std::atomic<uint64_t>, attest::kRefusalReasonCount> refused{};
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> seconds{};
  std::atomic<uint64_t> seconds_sum_nanoseconds{0};
  std::atomic<uint64_t> challenges{0};
  std::atomic<uint64_t> streams_refused{0};
  std::atomic<uint64_t> nacks{0};
  std::atomic<uint64_t> streams_revoked{0};

  void ObserveCertify(absl::Duration duration);
};

// What is asked for at a scrape.
struct IssuerGauges {
  uint64_t streams = 0, subscriptions = 0, store_errors = 0;
  uint64_t connections = 0, refused_total_limit = 0, refused_source_limit = 0;
  uint64_t bundle_epoch = 0, bundle_sequence = 0, policy_epoch = 0, policy_sequence = 0;
  uint64_t revocation_epoch = 0, revocation_sequence = 0, revocations_not_followed = 0;
  std::array<uint64_t, x509::kRevokedByCount> revocations{};
  absl::Time root_not_after, intermediate_not_after, own_not_after;
  ca::PluggedCaStatus plugged_ca;  // all zero without --ca-dir
  bool root_key_present = false;
  bool ready = false;
  RotationGauges rotation;
  std::vector<federation::ForeignStatus> federated;
  uint64_t bundles_served = 0;
  absl::Time now;  // to which ages are counted
};

// The scrape, text format 0.0.4.
std::string IssuerMetricsText(const IssuerCounters& counters, const IssuerGauges& gauges);

// The issuer's part of docs/METRICS.md: a Markdown table.
std::string IssuerMetricsReference();

}  // namespace postern::service
