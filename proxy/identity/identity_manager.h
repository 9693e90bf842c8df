// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/revocation_set.h"
#include "proxy/config/proxy_config.h"
#include "proxy/identity/endpoint_directory.h"
#include "proxy/identity/snapshot.h"
#include "proxy/identity/status.h"
#include "proxy/identity/trust_clock.h"
#include "proxy/net/loop.h"
#include "proxy/policy/policy_set.h"
#include "proxy/telemetry/metrics_registry.h"

namespace postern::identity {

// Everything of this proxy that is fetched, checked, renewed and published: its certificate, the
// trust bundles, the policy, the destinations. Owned by main on the main loop; outlives the
// workers, whose EndpointDirectory it is, and dies before the main loop does.
//
//   auto manager = IdentityManager::Create(config, loop, clock, {
//       .on_identity = [&](auto snapshot) { for (auto& w : workers) w->PublishIdentity(snapshot);
//       }, .on_policy = [&](auto policy) { for (auto& w : workers) w->PublishPolicy(policy); }});
//   ... make the workers with (*manager)->directory() ...
//   (*manager)->Start();
class IdentityManager {
 public:
  struct Callbacks {
    // On the main loop, or inside Start. Never null; a snapshot is not withdrawn when it expires:
    // who uses it looks at svid->CheckUsable (see HasUsableIdentity).
    std::function<void(std::shared_ptr<const IdentitySnapshot>)> on_identity;
    // The first comes inside Start: nothing is open before it.
    std::function<void(std::shared_ptr<const policy::PolicySet>)> on_policy;
    // What is revoked, the whole of it. Before the identity that is published with it.
    std::function<void(std::shared_ptr<const x509::RevocationSet>)> on_revocations = {};
  };

  // Reads what the configuration names (certificate files, bundle, policy, destinations, state
  // directory). Errors name the flag or the file and are faults of configuration: exit status 2. A
  // certificate that is missing at the issuer, or expired in its file, is none: it may still come.
  static absl::StatusOr<std::unique_ptr<IdentityManager>> Create(const config::ProxyConfig& config,
                                                                 net::Loop& main,
                                                                 const base::Clock& clock,
                                                                 Callbacks callbacks);
  ~IdentityManager();
  IdentityManager(const IdentityManager&) = delete;
  IdentityManager& operator=(const IdentityManager&) = delete;

  // Publishes what is there and goes to work. Main loop's thread, once.
  void Start();
  // SIGHUP: every file is read again, and an attempt at the issuer that waits is made now.
  void Reload();
  // A new certificate is asked for now, where one can be asked for. Main loop's thread.
  void Renew();

  // What was ever seen in the mesh and is not let fall back to plaintext, as IP:port or name:port;
  // and an operator's word that one of them, or "all", has left it. InvalidArgument: that is no
  // destination; NotFound: it was not seen. Main loop.
  std::vector<std::string> SeenInMesh() const;
  absl::Status ForgetSeen(std::string_view destination);

  // Lives as long as the manager.
  EndpointDirectory& directory();

  // Any thread, from here on.
  IdentityStatus status() const;
  telemetry::IdentityGauges gauges() const;
  std::shared_ptr<const IdentitySnapshot> snapshot() const;  // null before the first
  // What the issuer said of time; lives as long as the manager.
  const TrustClock& times() const;
  // For /ready: a certificate that is valid now (else why not), trust that is not staler than
  // --max-stale, and a policy.
  absl::Status CheckUsable() const;
  absl::Status CheckFresh() const;
  bool HasUsableIdentity() const;
  bool HasPolicy() const;
  // The issuer confirmed all that is held within kIssuerHeardFor: what it knows of a peer is known
  // here.
  bool HearsIssuer() const;
  static constexpr absl::Duration kIssuerHeardFor = absl::Minutes(5);

 private:
  class Impl;
  explicit IdentityManager(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::identity
