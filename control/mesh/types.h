// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/base/ip.h"
#include "common/x509/spiffe_id.h"
#include "control/store/types.h"

// What the mesh stream carries, as plain values; control/service turns them into postern.v1
// messages.
namespace postern::mesh {

using store::PolicyDocuments;
using store::Version;

// A destination. Port 0 stands for any port.
struct Address {
  base::IpAddress ip;
  uint16_t port = 0;
  auto operator<=>(const Address&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Address& address) {
    return H::combine(std::move(h), address.ip, address.port);
  }
};

enum class Transport : uint8_t { kDirectTls };

// What is known of one destination: who to expect there, and where to dial instead.
struct Endpoint {
  Address address;
  std::vector<std::string> spiffe_ids;  // sorted, without repetition, never empty
  Transport transport = Transport::kDirectTls;
  std::optional<Address> connect = std::nullopt;  // of a service: one of its places
  bool operator==(const Endpoint&) const = default;
};

// The answer to one subscribed address; no endpoints: it is not of the mesh.
struct Answer {
  Address asked;
  std::vector<Endpoint> endpoints;
};

struct EndpointUpdate {
  Version version;
  std::vector<Answer> answers;
};

// The roots that may speak for one trust domain.
struct TrustDomainRoots {
  std::string trust_domain;
  std::vector<std::string> root_der;
  std::vector<std::string> retired_root_sha256 = {};  // see postern.v1.TrustBundle
  bool operator==(const TrustDomainRoots&) const = default;
};

struct BundleSet {
  Version version;
  std::vector<TrustDomainRoots> bundles;
};

enum class Kind : uint8_t { kBundles, kPolicy, kEndpoints, kRevocations };

// What is revoked, as control/service has serialised and signed it: opaque here. Mirrors
// postern.v1.SignedRevocations.
struct SignedRevocations {
  Version version;  // of the list
  std::string list;
  std::string signature;
  std::vector<std::string> signer_chain_der;
};

// A port on which a proxy takes mesh connections; 0: every port (interception).
struct Serving {
  uint16_t port = 0;
  Transport transport = Transport::kDirectTls;
};

// What a session owes its proxy. Nothing set: nothing is owed.
struct Updates {
  std::shared_ptr<const BundleSet> bundles;
  std::shared_ptr<const PolicyDocuments> policy;
  std::optional<EndpointUpdate> endpoints;
  std::shared_ptr<const SignedRevocations> revocations;
  bool entry_gone = false;  // its entry was deleted: it has no place in the mesh any more
  bool empty() const {
    return bundles == nullptr && policy == nullptr && !endpoints.has_value() &&
           revocations == nullptr && !entry_gone;
  }
};

// A connected proxy, for status and metrics.
struct ProxyStatus {
  std::string spiffe_id;
  std::string entry_id;
  base::IpAddress source;
  Version acked_bundles;
  Version acked_policy;
  Version acked_endpoints;
  Version acked_revocations;
  std::string last_error;  // of its latest nack, printable; empty after an ack
  absl::Time connected_at;
  std::string serial = {};  // of the certificate that it connected with
};

}  // namespace postern::mesh
