// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_maker.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "control/ca/certificate_builder.h"

namespace postern::ca {
namespace {

using store::CaRecord;
using store::CaRole;

// Root -> intermediate -> leaf, and nothing longer.
constexpr int kRootPathLength = 1;
constexpr int kIntermediatePathLength = 0;

absl::Time WholeSeconds(absl::Time time) {
  return absl::FromUnixSeconds(absl::ToUnixSeconds(time));
}

}  // namespace

absl::StatusOr<NewCa> MakeCa(const CaOptions& options, CaRole role, store::CaState state,
                             const NewCa* issuer, absl::Time now) {
  absl::StatusOr<x509::PkeyPtr> key = x509::GenerateP256Key();
  if (!key.ok()) {
    return key.status();
  }
  const absl::StatusOr<base::Sha256Digest> digest = KeySha256(key->get());
  const absl::StatusOr<SerialBytes> serial = options.serial_source();
  if (!digest.ok() || !serial.ok()) {
    return digest.ok() ? serial.status() : digest.status();
  }
  const bool is_root = role == CaRole::kRoot;
  const std::string id = base::ToHex(*digest);
  Validity validity{
      .not_before = now - kCaBackdate,
      .not_after = now + (is_root ? options.root_lifetime : options.intermediate_lifetime)};
  if (issuer != nullptr) {
    validity.not_after = std::min(validity.not_after, x509::NotAfter(issuer->certificate.get()));
  }
  const Issuing issuing = issuer == nullptr ? Issuing{.certificate = nullptr, .key = key->get()}
                                            : Issuing{issuer->certificate.get(), issuer->key.get()};
  // Each CA has a name of its own, so that a verifier never tries one for another.
  absl::StatusOr<x509::X509Ptr> certificate =
      BuildCa(base::StrCat(is_root ? "root " : "intermediate ", id.substr(0, 16)),
              options.trust_domain.ToUri(), is_root ? kRootPathLength : kIntermediatePathLength,
              key->get(), *serial, validity, issuing);
  if (!certificate.ok()) {
    return certificate.status();
  }
  CaRecord record{.id = id,
                  .role = role,
                  .state = state,
                  .issuer_id = issuer == nullptr ? id : issuer->record.id,
                  .certificate_der = x509::CertificateToDer(certificate->get()),
                  .created_at = WholeSeconds(now)};
  return NewCa{*std::move(key), *std::move(certificate), std::move(record)};
}

absl::Status StoreNewCas(std::span<const NewCa> made, const KeyFiles& keys, store::CaStore& store) {
  absl::Status status = keys.Discard();
  std::vector<CaRecord> records;
  for (size_t i = 0; status.ok() && i < made.size(); ++i) {
    const CaRecord& record = made[i].record;
    status = keys.Write(KeyFiles::FileName(record.role, record.id), made[i].key.get());
    records.push_back(record);
  }
  return status.ok() ? store.AddCas(records) : status;
}

}  // namespace postern::ca
