// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "common/x509/spiffe_id.h"
#include "proxy/config/proxy_config.h"

namespace postern::policy {

// What is judged: who wants to reach what. A value.
struct ConnectionFacts {
  std::optional<x509::SpiffeId> source;      // verified identity; none: unauthenticated
  std::optional<base::IpAddress> source_ip;  // none for unix sockets
  uint16_t destination_port = 0;             // of the workload, 0 for a unix target
  std::string tunnel;                        // the tunnel's name, empty without one
};

struct Decision {
  bool allowed = false;
  // "name of the document / rule N", or what decided without a rule ("same trust domain",
  // "no ALLOW rule matched"). For the log and `postern policy check`.
  std::string rule;
  // What would have refused a connection that is let in, were the documents in audit mode enforced;
  // named in the same way. Empty: nothing.
  std::string audit;
};

// A policy document as it came, with its name for error messages.
struct NamedYaml {
  std::string name;
  std::string yaml;
};

// What one workload lets in. Compiled once, immutable, shared as shared_ptr<const PolicySet>.
//   apiVersion: postern.dev/v1
//   kind: AuthorizationPolicy
//   metadata: {name: db-clients}
//   spec:
//     workload: spiffe://td/db          # to whom it applies; a pattern; absent: everybody
//     action: ALLOW                     # or DENY
//     mode: enforce                     # or audit: what it would refuse passes, and is told of
//     rules:                            # any rule may match
//       - from:                         # any of these; absent: everybody
//           - spiffeIds: ["spiffe://td/web", "spiffe://td/batch/*"]
//           - trustDomains: [td]
//           - unauthenticated: true
//           - cidrs: [10.0.0.0/8]       # within one item all that is given must hold
//         to:                           # any of these; absent: everything
//           - ports: [5432]
//           - tunnels: ["inbound:127.0.0.1:8443"]
// DENY wins, then any ALLOW; else denied if any ALLOW applies to this workload, else the default:
// the workload's own trust domain, and the unauthenticated (who only get as far as Authorize where
// the port's mode or client-auth=none asks for no identity). "rules: []" of an ALLOW lets nobody
// in.
//   kind: DefaultPolicy       # another default
//   spec: {workload: ..., default: same-trust-domain | any-identity | everybody | nobody,
//          mode: enforce | audit}
//   kind: PeerMode
//   spec: {workload: ..., default: strict, ports: {"3306": permissive, "25": opaque, "22": skip}}
//   kind: ProbeExemption      # plaintext of the kubelet's probes, whatever mode and rules say
//   spec: {workload: ..., ports: [8080], cidrs: [192.0.2.1]}
// Of several PeerMode or DefaultPolicy documents the one with the most specific workload counts
// first.
class PolicySet {
 public:
  // Only the documents that apply to `workload` are kept. InvalidArgument: "NAME:LINE: field: what
  // is wrong", for the first fault; unknown fields are faults.
  static absl::StatusOr<std::shared_ptr<const PolicySet>> Compile(
      const std::vector<NamedYaml>& documents, const x509::SpiffeId& workload, uint64_t revision);
  // No documents at all: the default above.
  static std::shared_ptr<const PolicySet> SameTrustDomain(const x509::SpiffeId& workload);
  // With an issuer, before its first set has come.
  static std::shared_ptr<const PolicySet> DenyAll();

  Decision Authorize(const ConnectionFacts& facts) const;
  // The same for an intercepted port in this mode: a skipped port asks no policy, and who shows no
  // identity on a strict one is refused, but for a probe that is exempt. For the data plane and for
  // `postern policy`: both judge by this.
  Decision AuthorizeOn(config::PeerMode mode, const ConnectionFacts& facts) const;

  // The name of the document that exempts plaintext from there to that port; null: none does.
  const std::string* ProbeExemption(const std::optional<base::IpAddress>& source_ip,
                                    uint16_t port) const;

  // The mode of a port as the documents say; nullopt when they say nothing.
  std::optional<config::PeerMode> ModeOf(uint16_t port) const;
  uint64_t revision() const;
  bool is_deny_all() const;  // nothing has come yet: the reason is no_policy, not policy_denied

  struct Impl;
  explicit PolicySet(std::unique_ptr<Impl> impl);
  ~PolicySet();

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::policy
