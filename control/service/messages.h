// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "control/federation/foreign_bundles.h"
#include "control/mesh/types.h"
#include "control/store/types.h"
#include "postern/v1/admin.pb.h"
#include "postern/v1/mesh.pb.h"
#include "postern/v1/types.pb.h"

// Between the issuer's values and the messages of postern.v1. Pure. What comes in is checked:
// InvalidArgument names the field.
namespace postern::service {

v1::Version ToMessage(const store::Version& version);
store::Version FromMessage(const v1::Version& version);

v1::BundleSet ToMessage(const mesh::BundleSet& bundles);
v1::BundleList::Bundle ToMessage(const federation::ForeignStatus& foreign, absl::Time now);
v1::PolicyDocuments ToMessage(const store::PolicyDocuments& policy);
v1::SignedRevocations ToMessage(const mesh::SignedRevocations& revocations);
v1::RevocationList ToMessage(const store::RevocationList& list);
v1::Revocation ToMessage(const x509::Revocation& revocation);
// Subject and reason alone; the subject is not checked yet.
absl::StatusOr<x509::Revocation> FromMessage(const v1::Revocation& revocation);
v1::MeshResponse::EndpointUpdate ToMessage(const mesh::EndpointUpdate& update);

v1::Entry ToMessage(const store::Entry& entry);
absl::StatusOr<store::Entry> FromMessage(const v1::Entry& entry);

absl::StatusOr<mesh::Address> FromMessage(const v1::Address& address);
absl::StatusOr<mesh::Kind> FromMessage(v1::Kind kind);

}  // namespace postern::service
