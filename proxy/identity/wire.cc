// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/wire.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::identity {
namespace {

constexpr size_t kMostRetiredRoots = 128;
constexpr uint32_t kMaxPort = std::numeric_limits<uint16_t>::max();

// The newest come first. One of another length names nothing.
std::vector<base::Sha256Digest> RetiredRootsFromWire(const v1::TrustBundle& wire) {
  std::vector<base::Sha256Digest> digests;
  for (const std::string& text : wire.retired_root_sha256()) {
    base::Sha256Digest digest{};
    if (text.size() == digest.size() && digests.size() < kMostRetiredRoots) {
      std::copy(text.begin(), text.end(), digest.begin());
      digests.push_back(digest);
    }
  }
  return digests;
}

absl::StatusOr<x509::TrustBundle> BundleFromWire(const v1::TrustBundle& wire) {
  auto trust_domain = x509::TrustDomain::Parse(wire.trust_domain());
  if (!trust_domain.ok()) {
    return trust_domain.status();
  }
  if (wire.root_der_size() > kMostRootsPerTrustDomain) {
    return absl::InvalidArgumentError(
        base::StrCat("more than ", kMostRootsPerTrustDomain, " roots of ", trust_domain->name()));
  }
  std::vector<x509::X509Ptr> roots;
  for (const std::string& der : wire.root_der()) {
    auto root = x509::CertificateFromDer(base::AsBytes(der));
    if (!root.ok()) {
      return absl::InvalidArgumentError(base::StrCat("root ", roots.size() + 1, " of ",
                                                     trust_domain->name(), ": ",
                                                     base::Message(root.status())));
    }
    roots.push_back(*std::move(root));
  }
  auto bundle = x509::TrustBundle::Create(*std::move(trust_domain), std::move(roots));
  if (bundle.ok()) {
    bundle->SetRetiredRoots(RetiredRootsFromWire(wire));
  }
  return bundle;
}

struct RawSubject {
  x509::RevokedBy by;
  std::string text;
};

std::optional<RawSubject> SubjectOf(const v1::Revocation& wire) {
  switch (wire.subject_case()) {
    case v1::Revocation::kSpiffeId:
      return RawSubject{x509::RevokedBy::kSpiffeId, wire.spiffe_id()};
    case v1::Revocation::kSerial:
      return RawSubject{x509::RevokedBy::kSerial, base::ToHex(base::AsBytes(wire.serial()))};
    case v1::Revocation::kKeySha256:
      return RawSubject{x509::RevokedBy::kKey, base::ToHex(base::AsBytes(wire.key_sha256()))};
    case v1::Revocation::kIssuerSha256:
      return RawSubject{x509::RevokedBy::kIssuer, base::ToHex(base::AsBytes(wire.issuer_sha256()))};
    case v1::Revocation::SUBJECT_NOT_SET:
      break;
  }
  return std::nullopt;
}

// Adds what one endpoint says to `destination`. False: this release does not understand it.
bool AddEndpoint(const v1::Endpoint& endpoint, config::MeshDestination& destination) {
  const bool transport_known = endpoint.transport() == v1::TRANSPORT_DIRECT_TLS;
  if (!transport_known || endpoint.spiffe_ids().empty() || endpoint.connect_port() > kMaxPort) {
    return false;
  }
  std::vector<x509::SpiffeIdPattern> expected;
  for (const std::string& text : endpoint.spiffe_ids()) {
    const auto id = x509::SpiffeId::Parse(text);
    if (!id.ok() || !id->IsWorkload()) {
      return false;
    }
    expected.push_back(x509::SpiffeIdPattern::Exactly(*id));
  }
  config::EndpointSpec place;
  if (!endpoint.connect_address().empty()) {
    const auto connect = base::IpAddress::FromBytes(base::AsBytes(endpoint.connect_address()));
    if (!connect.ok()) {
      return false;
    }
    place.ip = *connect;
    destination.endpoints_are = config::EndpointsAre::kWorkloads;
  }
  place.port = static_cast<uint16_t>(endpoint.connect_port());
  if (std::find(destination.endpoints.begin(), destination.endpoints.end(), place) ==
      destination.endpoints.end()) {
    destination.endpoints.push_back(place);
  }
  for (auto& pattern : expected) {
    if (std::find(destination.expected.begin(), destination.expected.end(), pattern) ==
        destination.expected.end()) {
      destination.expected.push_back(std::move(pattern));
    }
  }
  return true;
}

// The endpoints that speak for the asked address: those with its port, else those for any port. An
// asked port of 0 means every port.
std::vector<const v1::Endpoint*> MostSpecific(
    const v1::MeshResponse::EndpointUpdate::Answer& wire) {
  std::vector<const v1::Endpoint*> exact;
  std::vector<const v1::Endpoint*> any;
  for (const v1::Endpoint& endpoint : wire.endpoints()) {
    if (endpoint.port() != 0 && endpoint.port() == wire.asked().port()) {
      exact.push_back(&endpoint);
    } else if (endpoint.port() == 0 || wire.asked().port() == 0) {
      any.push_back(&endpoint);
    }
  }
  return exact.empty() ? any : exact;
}

}  // namespace

Version FromWire(const v1::Version& version) {
  return {version.epoch(), version.sequence()};
}

v1::Version ToWire(const Version& version) {
  v1::Version wire;
  wire.set_epoch(version.epoch);
  wire.set_sequence(version.sequence);
  return wire;
}

absl::StatusOr<x509::TrustBundleSet> BundlesFromWire(const v1::BundleSet& wire) {
  if (wire.bundles().empty()) {
    return absl::InvalidArgumentError("an empty set of trust bundles");
  }
  if (wire.bundles_size() > kMostTrustDomains) {
    return absl::InvalidArgumentError(
        base::StrCat("bundles of more than ", kMostTrustDomains, " trust domains"));
  }
  std::vector<x509::TrustBundle> bundles;
  for (const v1::TrustBundle& one : wire.bundles()) {
    auto bundle = BundleFromWire(one);
    if (!bundle.ok()) {
      return bundle.status();
    }
    for (const auto& other : bundles) {
      if (other.trust_domain() == bundle->trust_domain()) {
        return absl::InvalidArgumentError(
            base::StrCat("two trust bundles of ", bundle->trust_domain().name()));
      }
    }
    bundles.push_back(*std::move(bundle));
  }
  return x509::TrustBundleSet(std::move(bundles));
}

absl::StatusOr<std::vector<x509::Revocation>> RevocationsFromWire(const v1::RevocationList& wire) {
  std::vector<x509::Revocation> revocations;
  revocations.reserve(static_cast<size_t>(wire.revocations_size()));
  for (const v1::Revocation& one : wire.revocations()) {
    const std::optional<RawSubject> raw = SubjectOf(one);
    if (!raw.has_value()) {
      return absl::InvalidArgumentError(base::StrCat(
          "revocation ", one.sequence(), " names something that this release does not know"));
    }
    absl::StatusOr<std::string> subject = x509::CanonicalSubject(raw->by, raw->text);
    if (!subject.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat("revocation ", one.sequence(), ": ", base::Message(subject.status())));
    }
    revocations.push_back({.by = raw->by,
                           .subject = *std::move(subject),
                           .sequence = one.sequence(),
                           .reason = one.reason(),
                           .revoked_at = absl::FromUnixSeconds(one.revoked_at()),
                           .forget_at = one.forget_at() == 0
                                            ? absl::InfiniteFuture()
                                            : absl::FromUnixSeconds(one.forget_at())});
  }
  return revocations;
}

std::vector<policy::NamedYaml> DocumentsFromWire(const v1::PolicyDocuments& wire) {
  std::vector<policy::NamedYaml> documents;
  for (const auto& document : wire.documents()) {
    documents.push_back({document.name(), document.yaml()});
  }
  return documents;
}

std::optional<AddressKey> AddressFromWire(const v1::Address& wire) {
  const auto ip = base::IpAddress::FromBytes(base::AsBytes(wire.address()));
  if (!ip.ok() || wire.port() > kMaxPort) {
    return std::nullopt;
  }
  return AddressKey{*ip, static_cast<uint16_t>(wire.port())};
}

v1::Address AddressToWire(const AddressKey& key) {
  v1::Address wire;
  wire.set_address(std::string(base::AsText(key.ip.bytes())));
  wire.set_port(key.port);
  return wire;
}

EndpointDirectory::Answer AnswerFromWire(const v1::MeshResponse::EndpointUpdate::Answer& wire) {
  if (wire.endpoints().empty()) {
    return std::optional<config::MeshDestination>();
  }
  if (wire.endpoints_size() > kMostEndpointsPerAnswer) {
    return absl::UnavailableError("the issuer named too many endpoints for one address");
  }
  config::MeshDestination destination;
  for (const v1::Endpoint* endpoint : MostSpecific(wire)) {
    if (!AddEndpoint(*endpoint, destination)) {
      return absl::UnavailableError(
          "the issuer named an endpoint that this release does not understand");
    }
  }
  if (destination.expected.empty()) {
    return absl::UnavailableError("the issuer's endpoints are not those of the address asked for");
  }
  if (destination.endpoints == std::vector<config::EndpointSpec>(1)) {
    destination.endpoints = {};  // what was asked for, which needs no words
  }
  return std::optional(std::move(destination));
}

}  // namespace postern::identity
