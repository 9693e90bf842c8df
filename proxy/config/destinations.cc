// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/destinations.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/config/yaml_tree.h"

namespace postern::config {
namespace {

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

// "IP:port", "[v6]:port", an address alone or ":port" alone.
absl::Status ReadConnectTo(const YamlField& field, MeshDestination& destination) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  if (const auto alone = base::IpAddress::Parse(*text); alone.ok()) {
    destination.connect_address = *alone;
    return absl::OkStatus();
  }
  const std::string_view whole = *text;
  const size_t colon = whole.rfind(':');
  const uint16_t port =
      colon == std::string_view::npos
          ? uint16_t{0}
          : base::ParseNumber<uint16_t>(whole.substr(colon + 1)).value_or(uint16_t{0});
  std::string_view host = whole.substr(0, colon == std::string_view::npos ? 0 : colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  const auto ip = base::IpAddress::Parse(host);
  const bool host_fits = host.empty() || (ip.ok() && ip->is_v4() == !bracketed);
  if (port == 0 || !host_fits) {
    return field.Fault(base::StrCat("'", base::Printable(whole, 64),
                                    "' is no address; write IP:port, [v6]:port, IP or :port"));
  }
  destination.connect_port = port;
  if (!host.empty()) {
    destination.connect_address = *ip;
  }
  return absl::OkStatus();
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
  std::vector<uint16_t> ports;
  MeshDestination destination;
};

absl::StatusOr<ParsedDestination> ReadSpec(const YamlField& spec) {
  ParsedDestination parsed;
  if (auto status = spec.ExpectOnly({"addresses", "ports", "spiffeIds", "connectTo", "pins"});
      !status.ok()) {
    return status;
  }
  const auto addresses = spec.Get("addresses");
  if (!addresses.ok()) {
    return addresses.status();
  }
  auto ranges = ReadList<base::Cidr>(*addresses, ReadCidr);
  if (!ranges.ok()) {
    return ranges.status();
  }
  parsed.ranges = *std::move(ranges);
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
  if (const auto field = spec.Find("connectTo")) {
    if (auto status = ReadConnectTo(*field, parsed.destination); !status.ok()) {
      return status;
    }
  }
  if (const auto field = spec.Find("pins")) {
    if (auto status = ReadPins(*field, parsed.destination); !status.ok()) {
      return status;
    }
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
      Range& range = set.ranges_[cidr];
      for (const uint16_t port : parsed->ports) {
        range.ports.try_emplace(port, destination);  // the first in the file counts
      }
      if (parsed->ports.empty() && range.other_ports == nullptr) {
        range.other_ports = destination;
      }
    }
  }
  return set;
}

std::optional<MeshDestination> DestinationSet::Find(const base::IpAddress& ip,
                                                    uint16_t port) const {
  std::shared_ptr<const MeshDestination> found;
  ranges_.ForEachAround(ip, [&found, port](const Range& range) {
    if (found == nullptr) {
      const auto exact = range.ports.find(port);
      found = exact != range.ports.end() ? exact->second : range.other_ports;
    }
  });
  return found != nullptr ? std::optional(*found) : std::nullopt;
}

}  // namespace postern::config
