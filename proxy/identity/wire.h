// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/revocation_set.h"
#include "common/x509/trust_bundle.h"
#include "postern/v1/mesh.pb.h"
#include "postern/v1/types.pb.h"
#include "proxy/identity/address_key.h"
#include "proxy/identity/endpoint_directory.h"
#include "proxy/identity/snapshot.h"
#include "proxy/policy/policy_set.h"

// Between postern.v1 messages and the values of this module. Pure. What the issuer sends is checked
// like anyone else's input.
namespace postern::identity {

inline constexpr int kMostTrustDomains = 1024;
inline constexpr int kMostRootsPerTrustDomain = 64;
inline constexpr int kMostEndpointsPerAnswer = 256;

Version FromWire(const v1::Version& version);
v1::Version ToWire(const Version& version);

// InvalidArgument names the trust domain and what is wrong with it; an empty set is refused.
absl::StatusOr<x509::TrustBundleSet> BundlesFromWire(const v1::BundleSet& wire);

// In canonical form. InvalidArgument: a subject that is none. One of a kind that this release does
// not know is InvalidArgument as well: a list that is not understood as a whole is not applied.
absl::StatusOr<std::vector<x509::Revocation>> RevocationsFromWire(const v1::RevocationList& wire);

std::vector<policy::NamedYaml> DocumentsFromWire(const v1::PolicyDocuments& wire);

// Nullopt: no address, or a port that is none.
std::optional<AddressKey> AddressFromWire(const v1::Address& wire);
v1::Address AddressToWire(const AddressKey& key);

// What a subscribed address is: see EndpointDirectory::Answer. An endpoint with the asked port wins
// over those for any port; several of equal rank are all expected. Unavailable when none of them
// can be used (a transport or an identity that this release does not understand): never "not of the
// mesh", which would mean plaintext.
EndpointDirectory::Answer AnswerFromWire(const v1::MeshResponse::EndpointUpdate::Answer& wire);

}  // namespace postern::identity
