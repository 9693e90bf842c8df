// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
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
  // Replaces what one entry gives; empty: nothing any more.
  void Publish(const std::string& entry_id, const std::string& spiffe_id,
               std::vector<Address> addresses);

  // The addresses (not ports) at which Publish would change something, sorted.
  std::vector<base::IpAddress> Affected(const std::string& entry_id,
                                        const std::vector<Address>& addresses) const;

  // An exact port wins over "any"; port 0 asks for all of the address.
  std::vector<Endpoint> Lookup(const Address& asked) const;

 private:
  struct Published {
    std::string spiffe_id;
    std::vector<Address> addresses;
  };
  using Identities = std::map<std::string, uint32_t>;  // SPIFFE ID -> entries that give it
  static Endpoint MakeEndpoint(const base::IpAddress& ip, uint16_t port,
                               const Identities& identities);
  void Remove(const Published& published);

  absl::flat_hash_map<std::string, Published> by_entry_;
  absl::flat_hash_map<base::IpAddress, std::map<uint16_t, Identities>> by_ip_;
};

}  // namespace postern::mesh
