// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "common/base/range_map.h"
#include "common/x509/peer_pins.h"
#include "common/x509/spiffe_id.h"

namespace postern::config {

// One place to dial for a destination. A value.
struct EndpointSpec {
  std::optional<base::IpAddress> ip;
  std::string name;   // of a host, to be resolved; empty with `ip`. Neither: what was asked for
  uint16_t port = 0;  // 0: the port that was asked for

  bool operator==(const EndpointSpec&) const = default;
};

// Who stands at the endpoints of a destination: what takes mTLS for the application, which may be
// another port or host than the application's own (--destinations); or the workloads of a service,
// each at an address of its own, where its application's own TLS comes as well.
enum class EndpointsAre : uint8_t { kForMtls, kWorkloads };

// What is known of one address or name of the mesh: whom to expect there and where to dial. A
// value.
struct MeshDestination {
  std::vector<x509::SpiffeIdPattern> expected;  // exact identities; never empty
  // Where to dial, each as good as the next; empty: what was asked for.
  std::vector<EndpointSpec> endpoints = {};
  std::shared_ptr<const x509::PeerPins> pins = nullptr;  // beyond the bundle; null: none
  EndpointsAre endpoints_are = EndpointsAre::kForMtls;

  bool operator==(const MeshDestination&) const = default;  // pins: the same object
};

// The static destinations of --destinations FILE. Immutable.
//   apiVersion: postern.dev/v1
//   kind: Destination
//   metadata: {name: db}
//   spec: {addresses: [192.0.2.7, 10.0.0.0/8], names: [db.example.org], ports: [5432],
//          spiffeIds: [spiffe://td/db], endpoints: [192.0.2.8:15432, "db-2.example.org:15432"],
//          pins: {caSha256: [sha256:HEX], keySha256: [sha256:HEX]}}
// Addresses, names or both. `connectTo: 192.0.2.8:15432` says the same as one endpoint. No ports
// means every port. The most specific CIDR wins, then an entry with the port, then the first in the
// file; a name is found as it is written, in any case, without wildcards.
class DestinationSet {
 public:
  DestinationSet() = default;
  // InvalidArgument: "FILE:LINE: field: what is wrong and the mend". Several YAML documents may
  // stand in one file.
  static absl::StatusOr<DestinationSet> FromYaml(std::string_view yaml, std::string_view file_name);

  // One hash lookup for each prefix length in the file, however many destinations there are.
  std::optional<MeshDestination> Find(const base::IpAddress& ip, uint16_t port) const;
  // By the name that a client asked for; without its final dot.
  std::optional<MeshDestination> FindName(std::string_view name, uint16_t port) const;
  bool empty() const { return ranges_.empty() && names_.empty(); }

 private:
  // What the file says of one range or name. Destinations are shared by their document's ranges,
  // names and ports.
  struct Range {
    void Add(const std::vector<uint16_t>& at, const std::shared_ptr<const MeshDestination>& is);
    std::shared_ptr<const MeshDestination> At(uint16_t port) const;

    absl::flat_hash_map<uint16_t, std::shared_ptr<const MeshDestination>> ports;
    std::shared_ptr<const MeshDestination> other_ports;
  };
  base::RangeMap<Range> ranges_;
  absl::flat_hash_map<std::string, Range> names_;  // in their one spelling
};

}  // namespace postern::config
