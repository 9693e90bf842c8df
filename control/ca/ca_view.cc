// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_view.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"

namespace postern::ca {
namespace {

using store::CaRecord;
using store::CaRole;
using store::CaState;

absl::StatusOr<std::shared_ptr<const SigningSlot>> LoadSlot(const std::vector<CaRecord>& records,
                                                            const KeyFiles& keys) {
  const CaRecord* intermediate = FindInState(records, CaRole::kIntermediate, CaState::kCurrent);
  const CaRecord* root =
      intermediate == nullptr ? nullptr : FindById(records, intermediate->issuer_id);
  if (root == nullptr) {
    return absl::DataLossError("the store has no complete CA: restore a backup");
  }
  absl::StatusOr<x509::X509Ptr> certificate = CertificateOf(*intermediate);
  absl::StatusOr<x509::X509Ptr> root_certificate = CertificateOf(*root);
  if (!certificate.ok() || !root_certificate.ok()) {
    return certificate.ok() ? root_certificate.status() : certificate.status();
  }
  if (X509_verify(certificate->get(), X509_get0_pubkey(root_certificate->get())) != 1) {
    return absl::DataLossError(
        "the stored intermediate is not signed by the stored root: restore a backup");
  }
  absl::StatusOr<x509::PkeyPtr> key = LoadKey(*intermediate, certificate->get(), keys);
  if (!key.ok()) {
    return key.status();
  }
  auto slot = std::make_shared<SigningSlot>();
  slot->ca_id = intermediate->id;
  slot->not_before =
      std::max(x509::NotBefore(certificate->get()), x509::NotBefore(root_certificate->get()));
  slot->not_after =
      std::min(x509::NotAfter(certificate->get()), x509::NotAfter(root_certificate->get()));
  slot->chain_der.push_back(x509::CertificateToDer(certificate->get()));
  slot->chain_pem = x509::CertificateToPem(certificate->get());
  slot->key = *std::move(key);
  slot->chain.push_back(*std::move(certificate));
  slot->root = *std::move(root_certificate);
  return slot;
}

// The roots that were withdrawn in order: connections that stand on them may go on.
std::vector<base::Sha256Digest> RetiredRoots(const std::vector<store::WithdrawnCa>& withdrawn) {
  std::vector<base::Sha256Digest> digests;
  for (const store::WithdrawnCa& ca : withdrawn) {
    if (ca.role == CaRole::kRoot && ca.in_order) {
      digests.push_back(x509::Sha256(base::AsBytes(ca.certificate_der)));
    }
  }
  return digests;
}

absl::StatusOr<std::shared_ptr<const x509::TrustBundleSet>> LoadBundles(
    const std::vector<CaRecord>& records, const std::vector<store::WithdrawnCa>& withdrawn,
    const x509::TrustDomain& trust_domain) {
  std::vector<x509::X509Ptr> roots;
  for (const CaRecord& record : records) {
    if (record.role == CaRole::kRoot) {
      absl::StatusOr<x509::X509Ptr> root = CertificateOf(record);
      if (!root.ok()) {
        return root.status();
      }
      roots.push_back(*std::move(root));
    }
  }
  absl::StatusOr<x509::TrustBundle> bundle =
      x509::TrustBundle::Create(trust_domain, std::move(roots));
  if (!bundle.ok()) {
    return absl::DataLossError(
        base::StrCat("the stored roots cannot be used: ", base::Message(bundle.status())));
  }
  bundle->SetRetiredRoots(RetiredRoots(withdrawn));
  std::vector<x509::TrustBundle> bundles;
  bundles.push_back(*std::move(bundle));
  return std::make_shared<const x509::TrustBundleSet>(std::move(bundles));
}

}  // namespace

const CaRecord* FindInState(const std::vector<CaRecord>& records, CaRole role, CaState state) {
  for (const CaRecord& record : records) {
    if (record.role == role && record.state == state) {
      return &record;
    }
  }
  return nullptr;
}

const CaRecord* FindById(const std::vector<CaRecord>& records, const std::string& id) {
  for (const CaRecord& record : records) {
    if (record.id == id) {
      return &record;
    }
  }
  return nullptr;
}

absl::StatusOr<x509::X509Ptr> CertificateOf(const CaRecord& record) {
  absl::StatusOr<x509::X509Ptr> certificate =
      x509::CertificateFromDer(base::AsBytes(record.certificate_der));
  if (!certificate.ok()) {
    return absl::DataLossError(base::StrCat("the stored certificate of CA ", record.id,
                                            " does not parse: restore a backup"));
  }
  return certificate;
}

absl::StatusOr<x509::PkeyPtr> LoadKey(const CaRecord& record, const X509* certificate,
                                      const KeyFiles& keys) {
  const std::string_view role = NameOf(record.role);
  const std::string name = KeyFiles::FileName(record.role, record.id);
  absl::StatusOr<x509::PkeyPtr> key = keys.Read(name);
  if (!key.ok()) {
    return absl::FailedPreconditionError(
        base::StrCat("the ", role, "'s key ", keys.directory(), "/", name,
                     " cannot be used: ", base::Message(key.status())));
  }
  if (X509_check_private_key(certificate, key->get()) != 1) {
    return absl::FailedPreconditionError(base::StrCat(
        keys.directory(), "/", name, " is not the key of the ", role, " in the store"));
  }
  return key;
}

absl::StatusOr<CaView> LoadCaView(const std::vector<CaRecord>& records,
                                  const std::vector<store::WithdrawnCa>& withdrawn,
                                  const x509::TrustDomain& trust_domain, const KeyFiles& keys) {
  auto slot = LoadSlot(records, keys);
  if (!slot.ok()) {
    return slot.status();
  }
  auto bundles = LoadBundles(records, withdrawn, trust_domain);
  if (!bundles.ok()) {
    return bundles.status();
  }
  return CaView{*std::move(slot), *std::move(bundles)};
}

}  // namespace postern::ca
