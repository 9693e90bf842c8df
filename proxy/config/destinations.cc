// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/destinations.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/host_name.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "proxy/config/yaml_tree.h"

namespace postern::config {
namespace {

// Of one destination; a session tries a few of them.
constexpr size_t kMostEndpoints = 64;

absl::StatusOr<x509::SpiffeIdPattern> ReadExactId(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  const auto id = x509::SpiffeId::Parse(*text);
  if (!id.ok()) {
    return field.Fault(base::StrCat(base::Message(id.status()),
                                    "; a destination names exact identities, without '*'"));
  }
  return x509::SpiffeIdPattern::Exactly(*id);
}

absl::StatusOr<EndpointSpec> ReadEndpoint(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  const auto parsed = base::HostPort::Parse(
      *text, {.names = true, .no_host = true, .no_port = true, .bare_v6 = true});
  if (!parsed.ok()) {
    return field.Fault(base::Message(parsed.status()));
  }
  EndpointSpec endpoint;
  endpoint.ip = parsed->ip;
  endpoint.port = parsed->port.value_or(uint16_t{0});
  if (!parsed->ip.has_value()) {
    endpoint.name = base::CanonicalHostName(parsed->host);
  }
  return endpoint;
}

// `endpoints` or `connectTo`: a list, or one that stands for it.
absl::Status ReadEndpoints(const YamlField& spec, MeshDestination& destination) {
  const auto list = spec.Find("endpoints");
  const auto one = spec.Find("connectTo");
  if (list && one) {
    return one->Fault("says with endpoints where to connect to; leave one of them out");
  }
  if (one) {
    auto endpoint = ReadEndpoint(*one);
    if (endpoint.ok()) {
      destination.endpoints.push_back(*std::move(endpoint));
    }
    return endpoint.status();
  }
  if (!list) {
    return absl::OkStatus();
  }
  auto endpoints = ReadList<EndpointSpec>(*list, ReadEndpoint);
  if (!endpoints.ok()) {
    return endpoints.status();
  }
  if (endpoints->size() > kMostEndpoints) {
    return list->Fault(base::StrCat("has more than ", kMostEndpoints, " endpoints"));
  }
  for (size_t i = 0; i < endpoints->size(); ++i) {
    if (std::find(endpoints->begin(), endpoints->begin() + static_cast<ptrdiff_t>(i),
                  (*endpoints)[i]) != endpoints->begin() + static_cast<ptrdiff_t>(i)) {
      return list->Fault(base::StrCat("names its endpoint ", i + 1, " twice"));
    }
  }
  destination.endpoints = *std::move(endpoints);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadHostName(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  const std::string name = base::CanonicalHostName(*text);
  if (!base::IsHostName(name)) {
    return field.Fault(base::StrCat("'", base::Printable(*text, 64),
                                    "' is no host name; addresses stand in addresses, and there "
                                    "are no wildcards"));
  }
  return name;
}

// A list that is not there stays empty.
absl::Status ReadPinList(const YamlField& pins, std::string_view name,
                         std::vector<base::Sha256Digest>& list) {
  const auto field = pins.Find(name);
  if (!field) {
    return absl::OkStatus();
  }
  auto read = ReadList<base::Sha256Digest>(
      *field, [](const YamlField& item) -> absl::StatusOr<base::Sha256Digest> {
        const auto text = item.Text();
        if (!text.ok()) {
          return text.status();
        }
        auto pin = x509::ParsePin(*text);
        if (!pin.ok()) {
          return item.Fault(base::Message(pin.status()));
        }
        return pin;
      });
  if (!read.ok()) {
    return read.status();
  }
  list = *std::move(read);
  return absl::OkStatus();
}

absl::Status ReadPins(const YamlField& field, MeshDestination& destination) {
  x509::PeerPins pins;
  absl::Status status = field.ExpectOnly({"caSha256", "keySha256"});
  if (status.ok()) {
    status = ReadPinList(field, "caSha256", pins.ca_sha256);
  }
  if (status.ok()) {
    status = ReadPinList(field, "keySha256", pins.key_sha256);
  }
  if (status.ok() && pins.empty()) {
    status = field.Fault("pins nothing; write caSha256 or keySha256, or leave it out");
  }
  if (status.ok()) {
    destination.pins = std::make_shared<const x509::PeerPins>(std::move(pins));
  }
  return status;
}

struct ParsedDestination {
  std::vector<base::Cidr> ranges;
  std::vector<std::string> names;
  std::vector<uint16_t> ports;
  MeshDestination destination;
};

// What the destination is known by: addresses, names, or both.
absl::Status ReadKeys(const YamlField& spec, ParsedDestination& parsed) {
  const auto names = spec.Find("names");
  if (names) {
    auto read = ReadList<std::string>(*names, ReadHostName);
    if (!read.ok()) {
      return read.status();
    }
    parsed.names = *std::move(read);
  }
  if (names && !spec.Find("addresses")) {
    return absl::OkStatus();
  }
  const auto addresses = spec.Get("addresses");
  if (!addresses.ok()) {
    return addresses.status();
  }
  auto ranges = ReadList<base::Cidr>(*addresses, ReadCidr);
  if (ranges.ok()) {
    parsed.ranges = *std::move(ranges);
  }
  return ranges.status();
}

absl::StatusOr<ParsedDestination> ReadSpec(const YamlField& spec) {
  ParsedDestination parsed;
  absl::Status status = spec.ExpectOnly(
      {"addresses", "names", "ports", "spiffeIds", "connectTo", "endpoints", "pins"});
  if (status.ok()) {
    status = ReadKeys(spec, parsed);
  }
  if (!status.ok()) {
    return status;
  }
  const auto ids = spec.Get("spiffeIds");
  if (!ids.ok()) {
    return ids.status();
  }
  auto expected = ReadList<x509::SpiffeIdPattern>(*ids, ReadExactId);
  if (!expected.ok()) {
    return expected.status();
  }
  parsed.destination.expected = *std::move(expected);
  if (const auto field = spec.Find("ports")) {
    auto ports = ReadList<uint16_t>(*field, [](const YamlField& item) { return item.Port(); });
    if (!ports.ok()) {
      return ports.status();
    }
    parsed.ports = *std::move(ports);
  }
  status = ReadEndpoints(spec, parsed.destination);
  if (const auto field = spec.Find("pins"); field && status.ok()) {
    status = ReadPins(*field, parsed.destination);
  }
  if (!status.ok()) {
    return status;
  }
  return parsed;
}

}  // namespace

absl::StatusOr<DestinationSet> DestinationSet::FromYaml(std::string_view yaml,
                                                        std::string_view file_name) {
  const auto documents = ReadDocuments(yaml, file_name);
  if (!documents.ok()) {
    return documents.status();
  }
  DestinationSet set;
  for (const Document& document : *documents) {
    if (document.kind != "Destination") {
      return YamlField(document.root, "", file_name)
          .Find("kind")
          ->Fault(base::StrCat("is '", base::Printable(document.kind, 64),
                               "'; a destinations file holds kind: Destination only"));
    }
    auto parsed = ReadSpec(document.Spec());
    if (!parsed.ok()) {
      return parsed.status();
    }
    const auto destination =
        std::make_shared<const MeshDestination>(std::move(parsed->destination));
    for (const base::Cidr& cidr : parsed->ranges) {
      set.ranges_[cidr].Add(parsed->ports, destination);
    }
    for (const std::string& name : parsed->names) {
      set.names_[name].Add(parsed->ports, destination);
    }
  }
  return set;
}

// The first in the file counts.
void DestinationSet::Range::Add(const std::vector<uint16_t>& at,
                                const std::shared_ptr<const MeshDestination>& is) {
  for (const uint16_t port : at) {
    ports.try_emplace(port, is);
  }
  if (at.empty() && other_ports == nullptr) {
    other_ports = is;
  }
}

std::shared_ptr<const MeshDestination> DestinationSet::Range::At(uint16_t port) const {
  const auto exact = ports.find(port);
  return exact != ports.end() ? exact->second : other_ports;
}

std::optional<MeshDestination> DestinationSet::Find(const base::IpAddress& ip,
                                                    uint16_t port) const {
  std::shared_ptr<const MeshDestination> found;
  ranges_.ForEachAround(ip, [&found, port](const Range& range) {
    if (found == nullptr) {
      found = range.At(port);
    }
  });
  return found != nullptr ? std::optional(*found) : std::nullopt;
}

std::optional<MeshDestination> DestinationSet::FindName(std::string_view name,
                                                        uint16_t port) const {
  const auto range = names_.find(base::CanonicalHostName(name));
  const auto found = range != names_.end() ? range->second.At(port) : nullptr;
  return found != nullptr ? std::optional(*found) : std::nullopt;
}

}  // namespace postern::config
