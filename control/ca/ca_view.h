// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/x509/trust_bundle.h"
#include "control/ca/ca_signer.h"
#include "control/ca/key_files.h"
#include "control/store/types.h"

// What records and keys amount to. Internal to control/ca.
namespace postern::ca {

struct CaView {
  std::shared_ptr<const SigningSlot> current;
  std::shared_ptr<const x509::TrustBundleSet> bundles;
};

// The record with this id, or the current one of a role; null: there is none.
const store::CaRecord* FindById(const std::vector<store::CaRecord>& records, const std::string& id);
const store::CaRecord* FindInState(const std::vector<store::CaRecord>& records, store::CaRole role,
                                   store::CaState state);

// DataLoss: the stored certificate does not parse.
absl::StatusOr<x509::X509Ptr> CertificateOf(const store::CaRecord& record);

// A CA's key, which must fit its certificate. FailedPrecondition names the file and what is wrong
// with it.
absl::StatusOr<x509::PkeyPtr> LoadKey(const store::CaRecord& record, const X509* certificate,
                                      const KeyFiles& keys);

// The current intermediate with its key and root, and the bundle of all roots, which names those
// that were withdrawn in order. DataLoss: the records make no CA. FailedPrecondition: LoadKey's.
absl::StatusOr<CaView> LoadCaView(const std::vector<store::CaRecord>& records,
                                  const std::vector<store::WithdrawnCa>& withdrawn,
                                  const x509::TrustDomain& trust_domain, const KeyFiles& keys);

}  // namespace postern::ca
