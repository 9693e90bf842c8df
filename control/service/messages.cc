// SPDX-License-Identifier: Apache-2.0
#include "control/service/messages.h"

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::service {
namespace {

absl::StatusOr<uint16_t> PortFrom(uint32_t port, std::string_view field) {
  if (port > 65535) {
    return absl::InvalidArgumentError(base::StrCat(field, ": ", port, " is no port"));
  }
  return static_cast<uint16_t>(port);
}

std::string BytesOf(const base::IpAddress& ip) {
  return std::string(base::AsText(ip.bytes()));
}

// Canonical hex has no leading zeros, so maybe an odd number of digits.
std::string SerialBytes(const std::string& hex) {
  return base::FromHex(hex.size() % 2 == 0 ? hex : "0" + hex).value_or("");
}

v1::Transport ToMessage(mesh::Transport transport) {
  switch (transport) {
    case mesh::Transport::kDirectTls:
      return v1::TRANSPORT_DIRECT_TLS;
  }
  return v1::TRANSPORT_UNSPECIFIED;
}

}  // namespace

v1::Version ToMessage(const store::Version& version) {
  v1::Version message;
  message.set_epoch(version.epoch);
  message.set_sequence(version.sequence);
  return message;
}

store::Version FromMessage(const v1::Version& version) {
  return {version.epoch(), version.sequence()};
}

v1::BundleSet ToMessage(const mesh::BundleSet& bundles) {
  v1::BundleSet message;
  *message.mutable_version() = ToMessage(bundles.version);
  for (const mesh::TrustDomainRoots& roots : bundles.bundles) {
    v1::TrustBundle& bundle = *message.add_bundles();
    bundle.set_trust_domain(roots.trust_domain);
    for (const std::string& der : roots.root_der) {
      bundle.add_root_der(der);
    }
    for (const std::string& digest : roots.retired_root_sha256) {
      bundle.add_retired_root_sha256(digest);
    }
  }
  return message;
}

v1::BundleList::Bundle ToMessage(const federation::ForeignStatus& foreign, absl::Time now) {
  v1::BundleList::Bundle message;
  message.set_trust_domain(foreign.trust_domain);
  for (const std::string& der : foreign.root_der) {
    message.add_root_der(der);
  }
  message.set_url(foreign.url);
  message.set_profile(std::string(federation::Token(foreign.profile)));
  message.set_endpoint_id(foreign.endpoint_id);
  if (foreign.sequence.has_value()) {
    message.set_sequence(*foreign.sequence);
  }
  const bool confirmed = foreign.fetched_at != absl::InfinitePast();
  message.set_fetched_at(confirmed ? absl::ToUnixSeconds(foreign.fetched_at) : 0);
  message.set_age_seconds(confirmed ? absl::ToInt64Seconds(now - foreign.fetched_at) : -1);
  message.set_refresh_seconds(absl::ToInt64Seconds(foreign.refresh));
  message.set_last_error(foreign.last_error);
  message.set_max_age_seconds(absl::ToInt64Seconds(foreign.max_age));
  message.set_on_stale(std::string(federation::Token(foreign.on_stale)));
  message.set_stale(foreign.stale);
  message.set_distrusted(foreign.distrusted);
  return message;
}

v1::PolicyDocuments ToMessage(const store::PolicyDocuments& policy) {
  v1::PolicyDocuments message;
  *message.mutable_version() = ToMessage(policy.version);
  for (const store::PolicyDocument& document : policy.documents) {
    v1::PolicyDocuments::Document& copy = *message.add_documents();
    copy.set_name(document.name);
    copy.set_yaml(document.yaml);
  }
  return message;
}

v1::SignedRevocations ToMessage(const mesh::SignedRevocations& revocations) {
  v1::SignedRevocations message;
  message.set_list(revocations.list);
  message.set_signature(revocations.signature);
  for (const std::string& der : revocations.signer_chain_der) {
    message.add_signer_chain_der(der);
  }
  return message;
}

v1::Revocation ToMessage(const x509::Revocation& revocation) {
  v1::Revocation message;
  message.set_sequence(revocation.sequence);
  message.set_reason(revocation.reason);
  message.set_revoked_at(absl::ToUnixSeconds(revocation.revoked_at));
  if (revocation.forget_at != absl::InfiniteFuture()) {
    message.set_forget_at(absl::ToUnixSeconds(revocation.forget_at));
  }
  switch (revocation.by) {
    case x509::RevokedBy::kSpiffeId:
      message.set_spiffe_id(revocation.subject);
      break;
    case x509::RevokedBy::kSerial:
      message.set_serial(SerialBytes(revocation.subject));
      break;
    case x509::RevokedBy::kKey:
      message.set_key_sha256(base::FromHex(revocation.subject).value_or(""));
      break;
    case x509::RevokedBy::kIssuer:
      message.set_issuer_sha256(base::FromHex(revocation.subject).value_or(""));
      break;
  }
  return message;
}

v1::RevocationList ToMessage(const store::RevocationList& list) {
  v1::RevocationList message;
  *message.mutable_version() = ToMessage(list.version);
  for (const x509::Revocation& revocation : list.revocations) {
    *message.add_revocations() = ToMessage(revocation);
  }
  return message;
}

absl::StatusOr<x509::Revocation> FromMessage(const v1::Revocation& message) {
  x509::Revocation revocation;
  revocation.reason = message.reason();
  switch (message.subject_case()) {
    case v1::Revocation::kSpiffeId:
      revocation.by = x509::RevokedBy::kSpiffeId;
      revocation.subject = message.spiffe_id();
      return revocation;
    case v1::Revocation::kSerial:
      revocation.by = x509::RevokedBy::kSerial;
      revocation.subject = base::ToHex(base::AsBytes(message.serial()));
      return revocation;
    case v1::Revocation::kKeySha256:
      revocation.by = x509::RevokedBy::kKey;
      revocation.subject = base::ToHex(base::AsBytes(message.key_sha256()));
      return revocation;
    case v1::Revocation::kIssuerSha256:
      revocation.by = x509::RevokedBy::kIssuer;
      revocation.subject = base::ToHex(base::AsBytes(message.issuer_sha256()));
      return revocation;
    case v1::Revocation::SUBJECT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("revocation: no subject");
}

v1::MeshResponse::EndpointUpdate ToMessage(const mesh::EndpointUpdate& update) {
  v1::MeshResponse::EndpointUpdate message;
  *message.mutable_version() = ToMessage(update.version);
  for (const mesh::Answer& answer : update.answers) {
    v1::MeshResponse::EndpointUpdate::Answer& copy = *message.add_answers();
    copy.mutable_asked()->set_address(BytesOf(answer.asked.ip));
    copy.mutable_asked()->set_port(answer.asked.port);
    for (const mesh::Endpoint& endpoint : answer.endpoints) {
      v1::Endpoint& out = *copy.add_endpoints();
      out.set_address(BytesOf(endpoint.address.ip));
      out.set_port(endpoint.address.port);
      for (const std::string& id : endpoint.spiffe_ids) {
        out.add_spiffe_ids(id);
      }
      out.set_transport(ToMessage(endpoint.transport));
      if (endpoint.connect.has_value()) {
        out.set_connect_address(BytesOf(endpoint.connect->ip));
        out.set_connect_port(endpoint.connect->port);
      }
    }
  }
  return message;
}

v1::Entry ToMessage(const store::Entry& entry) {
  v1::Entry message;
  message.set_id(entry.id);
  message.set_spiffe_id(entry.spiffe_id.uri());
  for (const std::string& selector : entry.selectors) {
    message.add_selectors(selector);
  }
  for (const base::Cidr& cidr : entry.allowed_addresses) {
    message.add_allowed_addresses(cidr.ToString());
  }
  message.set_publish_connection_address(entry.publish_connection_address);
  message.set_svid_ttl_seconds(absl::ToInt64Seconds(entry.svid_ttl));
  message.set_created_at(absl::ToUnixSeconds(entry.created_at));
  for (const uint16_t port : entry.ports) {
    message.add_ports(port);
  }
  for (const base::ServiceAddress& service : entry.services) {
    message.add_services(service.ToString());
  }
  return message;
}

absl::StatusOr<store::Entry> FromMessage(const v1::Entry& message) {
  absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(message.spiffe_id());
  if (!id.ok()) {
    return absl::InvalidArgumentError(base::StrCat("spiffe_id: ", base::Message(id.status())));
  }
  store::Entry entry{.spiffe_id = *std::move(id)};
  entry.selectors.assign(message.selectors().begin(), message.selectors().end());
  for (const std::string& text : message.allowed_addresses()) {
    const absl::StatusOr<base::Cidr> cidr = base::Cidr::Parse(text);
    if (!cidr.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat("allowed_addresses: ", base::Message(cidr.status())));
    }
    entry.allowed_addresses.push_back(*cidr);
  }
  entry.publish_connection_address = message.publish_connection_address();
  for (const uint32_t number : message.ports()) {
    const absl::StatusOr<uint16_t> port = PortFrom(number, "ports");
    if (!port.ok()) {
      return port.status();
    }
    entry.ports.push_back(*port);
  }
  for (const std::string& text : message.services()) {
    const absl::StatusOr<base::ServiceAddress> service = base::ServiceAddress::Parse(text);
    if (!service.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat("services: ", base::Message(service.status())));
    }
    entry.services.push_back(*service);
  }
  if (message.svid_ttl_seconds() < 0) {
    return absl::InvalidArgumentError("svid_ttl_seconds: negative");
  }
  entry.svid_ttl = absl::Seconds(message.svid_ttl_seconds());
  return entry;
}

absl::StatusOr<mesh::Address> FromMessage(const v1::Address& message) {
  const absl::StatusOr<base::IpAddress> ip =
      base::IpAddress::FromBytes(base::AsBytes(message.address()));
  const absl::StatusOr<uint16_t> port = PortFrom(message.port(), "address.port");
  if (!ip.ok()) {
    return ip.status();
  }
  if (!port.ok()) {
    return port.status();
  }
  return mesh::Address{*ip, *port};
}

absl::StatusOr<mesh::Kind> FromMessage(v1::Kind kind) {
  switch (kind) {
    case v1::KIND_BUNDLES:
      return mesh::Kind::kBundles;
    case v1::KIND_POLICY:
      return mesh::Kind::kPolicy;
    case v1::KIND_ENDPOINTS:
      return mesh::Kind::kEndpoints;
    case v1::KIND_REVOCATIONS:
      return mesh::Kind::kRevocations;
    default:
      return absl::InvalidArgumentError("kind: unknown");
  }
}

}  // namespace postern::service
