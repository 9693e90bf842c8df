// SPDX-License-Identifier: Apache-2.0
#include "control/mesh/directory.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace postern::mesh {
namespace {

bool IsSingleAddress(const base::Cidr& cidr) {
  return cidr.prefix_length() == (cidr.base().is_v4() ? 32 : 128);
}

// Whether the source address of a proxy's connection may become an endpoint of its entry.
bool MayPublishSource(const store::Entry& entry, const base::IpAddress& source) {
  if (!entry.publish_connection_address) {
    return false;
  }
  if (entry.allowed_addresses.empty()) {
    return !source.IsLoopback() && !source.IsUnspecified();
  }
  return std::any_of(entry.allowed_addresses.begin(), entry.allowed_addresses.end(),
                     [&source](const base::Cidr& cidr) { return cidr.Contains(source); });
}

// The ports of what a proxy serves that its entry lets it serve.
std::vector<uint16_t> PortsServed(const store::Entry& entry, const store::Speaker& speaker) {
  std::vector<uint16_t> ports;
  for (uint16_t port : speaker.ports) {
    if (port == 0 && !entry.ports.empty()) {
      return entry.ports;
    }
    if (entry.ports.empty() ||
        std::find(entry.ports.begin(), entry.ports.end(), port) != entry.ports.end()) {
      ports.push_back(port);
    }
  }
  return ports;
}

// The ports of an entry's own addresses: what the operator wrote, else what its proxies say that
// they serve, else any.
std::vector<uint16_t> PortsOfEntry(const store::Entry& entry,
                                   const std::vector<store::Speaker>& speakers) {
  if (!entry.ports.empty()) {
    return entry.ports;
  }
  if (speakers.empty()) {
    return {0};
  }
  std::vector<uint16_t> ports;
  for (const store::Speaker& speaker : speakers) {
    const std::vector<uint16_t> served = PortsServed(entry, speaker);
    ports.insert(ports.end(), served.begin(), served.end());
  }
  return ports;
}

}  // namespace

std::vector<Address> AddressesOf(const store::Entry& entry,
                                 const std::vector<store::Speaker>& speakers) {
  std::vector<Address> addresses;
  const std::vector<uint16_t> ports = PortsOfEntry(entry, speakers);
  for (const base::Cidr& cidr : entry.allowed_addresses) {
    if (IsSingleAddress(cidr)) {
      for (uint16_t port : ports) {
        addresses.push_back({cidr.base(), port});
      }
    }
  }
  for (const store::Speaker& speaker : speakers) {
    if (MayPublishSource(entry, speaker.source)) {
      for (uint16_t port : PortsServed(entry, speaker)) {
        addresses.push_back({speaker.source, port});
      }
    }
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

std::vector<base::IpAddress> Directory::Affected(const std::string& entry_id,
                                                 const std::vector<Address>& addresses) const {
  const auto old = by_entry_.find(entry_id);
  std::vector<Address> changed;
  if (old == by_entry_.end()) {
    changed = addresses;
  } else {
    std::set_symmetric_difference(old->second.addresses.begin(), old->second.addresses.end(),
                                  addresses.begin(), addresses.end(), std::back_inserter(changed));
  }
  std::vector<base::IpAddress> ips;
  for (const Address& address : changed) {
    if (ips.empty() || ips.back() != address.ip) {  // `changed` is sorted by address
      ips.push_back(address.ip);
    }
  }
  return ips;
}

void Directory::Publish(const std::string& entry_id, const std::string& spiffe_id,
                        std::vector<Address> addresses) {
  if (const auto old = by_entry_.find(entry_id); old != by_entry_.end()) {
    Remove(old->second);
    by_entry_.erase(old);
  }
  if (addresses.empty()) {
    return;
  }
  for (const Address& address : addresses) {
    ++by_ip_[address.ip][address.port][spiffe_id];
  }
  by_entry_.emplace(entry_id, Published{spiffe_id, std::move(addresses)});
}

void Directory::Remove(const Published& published) {
  for (const Address& address : published.addresses) {
    const auto ip = by_ip_.find(address.ip);
    if (ip == by_ip_.end()) {
      continue;
    }
    const auto port = ip->second.find(address.port);
    if (port != ip->second.end()) {
      const auto identity = port->second.find(published.spiffe_id);
      if (identity != port->second.end() && --identity->second == 0) {
        port->second.erase(identity);
      }
      if (port->second.empty()) {
        ip->second.erase(port);
      }
    }
    if (ip->second.empty()) {
      by_ip_.erase(ip);
    }
  }
}

Endpoint Directory::MakeEndpoint(const base::IpAddress& ip, uint16_t port,
                                 const Identities& identities) {
  Endpoint endpoint{.address = {ip, port}, .spiffe_ids = {}, .transport = Transport::kDirectTls};
  for (const auto& [spiffe_id, entries] : identities) {
    endpoint.spiffe_ids.push_back(spiffe_id);
  }
  return endpoint;
}

std::vector<Endpoint> Directory::Lookup(const Address& asked) const {
  const auto ip = by_ip_.find(asked.ip);
  if (ip == by_ip_.end()) {
    return {};
  }
  std::vector<Endpoint> endpoints;
  if (asked.port == 0) {
    for (const auto& [port, identities] : ip->second) {
      endpoints.push_back(MakeEndpoint(asked.ip, port, identities));
    }
    return endpoints;
  }
  auto port = ip->second.find(asked.port);
  if (port == ip->second.end()) {
    port = ip->second.find(0);
  }
  if (port != ip->second.end()) {
    endpoints.push_back(MakeEndpoint(asked.ip, port->first, port->second));
  }
  return endpoints;
}

}  // namespace postern::mesh
