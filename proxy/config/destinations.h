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

// What is known of one address of the mesh: whom to expect there and where to dial. A value.
struct MeshDestination {
  std::vector<x509::SpiffeIdPattern> expected;     // exact identities; never empty
  std::optional<base::IpAddress> connect_address;  // instead of the address that was asked for
  uint16_t connect_port = 0;                       // 0: the port that was asked for
  std::shared_ptr<const x509::PeerPins> pins = nullptr;  // beyond the bundle; null: none

  bool operator==(const MeshDestination&) const = default;  // pins: the same object
};

// The static destinations of --destinations FILE. Immutable.
//   apiVersion: postern.dev/v1
//   kind: Destination
//   metadata: {name: db}
//   spec: {addresses: [192.0.2.7, 10.0.0.0/8], ports: [5432], spiffeIds: [spiffe://td/db],
//          connectTo: 192.0.2.8:15432,
//          pins: {caSha256: [sha256:HEX], keySha256: [sha256:HEX]}}
// No ports means every port. The most specific CIDR wins, then an entry with the port, then the
// first in the file.
class DestinationSet {
 public:
  DestinationSet() = default;
  // InvalidArgument: "FILE:LINE: field: what is wrong and the mend". Several YAML documents may
  // stand in one file.
  static absl::StatusOr<DestinationSet> FromYaml(std::string_view yaml, std::string_view file_name);

  // One hash lookup for each prefix length in the file, however many destinations there are.
  std::optional<MeshDestination> Find(const base::IpAddress& ip, uint16_t port) const;
  bool empty() const { return ranges_.empty(); }

 private:
  // What the file says of one range. Destinations are shared by their document's ranges and ports.
  struct Range {
    absl::flat_hash_map<uint16_t, std::shared_ptr<const MeshDestination>> ports;
    std::shared_ptr<const MeshDestination> other_ports;
  };
  base::RangeMap<Range> ranges_;
};

}  // namespace postern::config
