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

// Where an entry takes what is for a service. Of the family that was asked for, if it has that one.
std::vector<Address> PlacesOf(const Directory::Published& published, const Address& service) {
  std::vector<Address> same, other;
  for (const base::ServiceAddress& one : published.services) {
    if (Address{one.ip, one.port} != service) {
      continue;
    }
    for (const Address& address : published.addresses) {
      if (address.port == 0 || address.port == one.target_port) {
        (address.ip.is_v4() == service.ip.is_v4() ? same : other)
            .push_back({address.ip, one.target_port});
      }
    }
  }
  return same.empty() ? other : same;
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
                                                 const Published& next) const {
  const auto found = by_entry_.find(entry_id);
  const Published old = found == by_entry_.end() ? Published() : found->second;
  std::vector<Address> changed;
  std::set_symmetric_difference(old.addresses.begin(), old.addresses.end(), next.addresses.begin(),
                                next.addresses.end(), std::back_inserter(changed));
  std::vector<base::IpAddress> ips;
  ips.reserve(changed.size() + old.services.size() + next.services.size());
  for (const Address& address : changed) {
    ips.push_back(address.ip);
  }
  if (!changed.empty() || old.services != next.services) {
    for (const auto* services : {&old.services, &next.services}) {
      for (const base::ServiceAddress& service : *services) {
        ips.push_back(service.ip);
      }
    }
  }
  std::sort(ips.begin(), ips.end());
  ips.erase(std::unique(ips.begin(), ips.end()), ips.end());
  return ips;
}

void Directory::Publish(const std::string& entry_id, const Published& published) {
  if (const auto old = by_entry_.find(entry_id); old != by_entry_.end()) {
    Remove(entry_id, old->second);
    by_entry_.erase(old);
  }
  if (published.addresses.empty() && published.services.empty()) {
    return;
  }
  for (const Address& address : published.addresses) {
    ++by_ip_[address.ip][address.port][published.spiffe_id];
  }
  for (const base::ServiceAddress& service : published.services) {
    by_service_[{service.ip, service.port}].insert(entry_id);
  }
  by_entry_.emplace(entry_id, published);
}

void Directory::Remove(const std::string& entry_id, const Published& published) {
  for (const base::ServiceAddress& service : published.services) {
    const auto entries = by_service_.find({service.ip, service.port});
    if (entries == by_service_.end()) {
      continue;  // the entry names it twice, with two ports of its own
    }
    entries->second.erase(entry_id);
    if (entries->second.empty()) {
      by_service_.erase(entries);
    }
  }
  for (const Address& address : published.addresses) {
    RemoveAddress(address, published.spiffe_id);
  }
}

void Directory::RemoveAddress(const Address& address, const std::string& spiffe_id) {
  const auto ip = by_ip_.find(address.ip);
  if (ip == by_ip_.end()) {
    return;
  }
  const auto port = ip->second.find(address.port);
  if (port != ip->second.end()) {
    const auto identity = port->second.find(spiffe_id);
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

Endpoint Directory::MakeEndpoint(const base::IpAddress& ip, uint16_t port,
                                 const Identities& identities) {
  Endpoint endpoint{.address = {ip, port}, .spiffe_ids = {}, .transport = Transport::kDirectTls};
  for (const auto& [spiffe_id, entries] : identities) {
    endpoint.spiffe_ids.push_back(spiffe_id);
  }
  return endpoint;
}

std::vector<Endpoint> Directory::LookupService(const Address& asked,
                                               const std::set<std::string>& entry_ids) const {
  std::map<Address, std::set<std::string>> places;  // and who is expected there
  Endpoint nowhere{.address = asked, .spiffe_ids = {}};
  for (const std::string& entry_id : entry_ids) {
    const Published& published = by_entry_.at(entry_id);
    nowhere.spiffe_ids.push_back(published.spiffe_id);
    for (const Address& place : PlacesOf(published, asked)) {
      places[place].insert(published.spiffe_id);
    }
  }
  if (places.empty()) {
    std::vector<std::string>& ids = nowhere.spiffe_ids;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return {std::move(nowhere)};
  }
  std::vector<Endpoint> endpoints;
  for (const auto& [place, ids] : places) {
    if (endpoints.size() < kMostPlaces) {
      endpoints.push_back(
          {.address = asked, .spiffe_ids = {ids.begin(), ids.end()}, .connect = place});
    }
  }
  return endpoints;
}

std::vector<Endpoint> Directory::Lookup(const Address& asked) const {
  if (const auto entries = by_service_.find(asked); entries != by_service_.end()) {
    return LookupService(asked, entries->second);
  }
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
