// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/ip.h"
#include "common/base/service_address.h"
#include "common/x509/revocation_set.h"
#include "common/x509/spiffe_id.h"

// The values that the store keeps. Plain values: no lock, no owner, no database in them.
namespace postern::store {

// Orders the states of one kind of document. The epoch is chosen when a store is made or restored;
// within it the sequence grows. {0, 0} is older than everything. Mirrors postern.v1.Version.
struct Version {
  uint64_t epoch = 0;
  uint64_t sequence = 0;
  auto operator<=>(const Version&) const = default;
};

// A registration entry: who has all of these selectors is that SPIFFE ID. Mirrors postern.v1.Entry.
struct Entry {
  std::string id = {};  // 32 hex digits, set by the store
  x509::SpiffeId spiffe_id;
  // Canonical texts ("unix:uid:1000"; control/attest/selector.h), sorted, without repetition, at
  // least one: an entry without selectors would match everybody.
  std::vector<std::string> selectors = {};
  std::vector<base::Cidr> allowed_addresses = {};  // what its proxies may claim as endpoints
  bool publish_connection_address = false;  // the source address of its proxy's connection too
  std::vector<uint16_t> ports = {};         // the workload's ports in the mesh; empty: every one
  // Where it is reached as one of several, sorted, without repetition.
  std::vector<base::ServiceAddress> services = {};
  absl::Duration svid_ttl = absl::ZeroDuration();  // zero: the issuer's default
  absl::Time created_at = absl::UnixEpoch();       // set by the store, whole seconds

  bool operator==(const Entry&) const = default;
};

// What is remembered of each certificate that was issued.
struct IssuedCertificate {
  std::string serial = {};  // as x509::SerialHex gives it
  x509::SpiffeId spiffe_id;
  std::string entry_id = {};  // empty: the issuer's own certificate
  std::string ca_id = {};     // the CA that signed it
  absl::Time not_before = absl::UnixEpoch();
  absl::Time not_after = absl::UnixEpoch();
  absl::Time issued_at = absl::UnixEpoch();
  base::Sha256Digest key_sha256 = {};   // of the SubjectPublicKeyInfo
  base::Sha256Digest leaf_sha256 = {};  // of the certificate's DER
  // The serial of the certificate that its owner showed for it; empty: other evidence.
  std::string replaces = {};

  bool operator==(const IssuedCertificate&) const = default;
};

// What the end of a CA has to wait for: a certificate that its owner may still use.
struct LiveCertificate {
  std::string serial = {};
  std::string ca_id = {};
  std::string replaces = {};  // see IssuedCertificate
  absl::Time issued_at = absl::UnixEpoch();
  absl::Time not_after = absl::UnixEpoch();

  bool operator==(const LiveCertificate&) const = default;
};

// A proxy that serves an entry at an address: what the mesh learned from its connection, kept so
// that a restart of the issuer does not forget where the mesh is. One for each (entry_id, source).
struct Speaker {
  std::string entry_id = {};
  base::IpAddress source = {};
  std::vector<uint16_t> ports = {};  // sorted; 0: every port; none: it takes no connections

  bool operator==(const Speaker&) const = default;
};

enum class CaRole : uint8_t { kRoot, kIntermediate };

// A CA certificate's place in its life. At most one of each role is current, and one next.
enum class CaState : uint8_t {
  kNext,     // distributed, does not sign yet
  kCurrent,  // signs
  kRetired,  // signs no more, still trusted until it is deleted
};

// "root", "intermediate"; "next", "current", "retired": in the database, in messages, as labels.
constexpr std::string_view NameOf(CaRole role) {
  return role == CaRole::kRoot ? "root" : "intermediate";
}
constexpr std::string_view NameOf(CaState state) {
  switch (state) {
    case CaState::kNext:
      return "next";
    case CaState::kCurrent:
      return "current";
    case CaState::kRetired:
      return "retired";
  }
  return "";
}

// A CA certificate of ours. Its key is a file of the state directory (control/ca), never a row.
struct CaRecord {
  std::string id = {};  // SHA-256 of its public key, hex
  CaRole role = CaRole::kRoot;
  CaState state = CaState::kNext;
  std::string issuer_id = {};  // id of the CA that signed it; its own for a root
  std::string certificate_der = {};
  absl::Time created_at = absl::UnixEpoch();

  bool operator==(const CaRecord&) const = default;
};

// A CA that was withdrawn: no bundle holds it any more, and nothing that it signed is acknowledged.
struct WithdrawnCa {
  std::string id = {};
  CaRole role = CaRole::kRoot;
  std::string certificate_der = {};
  // Nothing that it signed was in use any more; false: it was withdrawn by force.
  bool in_order = false;
  absl::Time withdrawn_at = absl::UnixEpoch();

  bool operator==(const WithdrawnCa&) const = default;
};

// The bundle of a foreign trust domain: as it was fetched last, or as the operator gave it to begin
// with.
struct ForeignBundle {
  std::string trust_domain = {};
  std::string document = {};                  // a SPIFFE bundle, JSON
  absl::Time fetched_at = absl::UnixEpoch();  // last confirmed by its endpoint; the epoch: never
  std::string bootstrap_sha256 = {};          // of what the operator gave, hex; empty: nothing

  bool operator==(const ForeignBundle&) const = default;
};

// A policy document as the operator wrote it. Mirrors postern.v1.PolicyDocuments.Document.
struct PolicyDocument {
  std::string name = {};
  std::string yaml = {};
  bool operator==(const PolicyDocument&) const = default;
};

// Everything that is revoked. Mirrors postern.v1.RevocationList.
struct RevocationList {
  Version version = {};
  std::vector<x509::Revocation> revocations = {};  // oldest first
};

// The whole set that is in force.
struct PolicyDocuments {
  Version version = {};
  std::vector<PolicyDocument> documents = {};  // in the order they were given
};

}  // namespace postern::store
