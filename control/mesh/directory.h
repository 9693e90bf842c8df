// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/ip.h"
#include "control/mesh/types.h"
#include "control/store/types.h"

namespace postern::mesh {

// The addresses that an entry gives with these speakers, by the rules that MeshState documents.
// Sorted, without repetition.
std::vector<Address> AddressesOf(const store::Entry& entry,
                                 const std::vector<store::Speaker>& speakers);

// Which identities are to be expected at which address. Not thread-safe; MeshState guards it.
// Internal to control/mesh.
class Directory {
 public:
  static constexpr size_t kMostPlaces = 64;  // of one service, the first by address

  // What one entry gives.
  struct Published {
    std::string spiffe_id = {};
    std::vector<Address> addresses = {};  // sorted, without repetition
    std::vector<base::ServiceAddress> services = {};
  };

  // Replaces what one entry gives; empty: nothing any more.
  void Publish(const std::string& entry_id, const Published& published);

  // The addresses (not ports) at which Publish would change something, sorted.
  std::vector<base::IpAddress> Affected(const std::string& entry_id, const Published& next) const;

  // A service wins over an exact port, that over "any"; port 0 asks for all of the address. A
  // service without a place is its own address, where nobody answers: never "not of the mesh".
  std::vector<Endpoint> Lookup(const Address& asked) const;

 private:
  using Identities = std::map<std::string, uint32_t>;  // SPIFFE ID -> entries that give it
  static Endpoint MakeEndpoint(const base::IpAddress& ip, uint16_t port,
                               const Identities& identities);
  std::vector<Endpoint> LookupService(const Address& asked,
                                      const std::set<std::string>& entry_ids) const;
  void Remove(const std::string& entry_id, const Published& published);
  void RemoveAddress(const Address& address, const std::string& spiffe_id);

  absl::flat_hash_map<std::string, Published> by_entry_;
  absl::flat_hash_map<base::IpAddress, std::map<uint16_t, Identities>> by_ip_;
  absl::flat_hash_map<Address, std::set<std::string>> by_service_;  // the entries' ids
};

}  // namespace postern::mesh
