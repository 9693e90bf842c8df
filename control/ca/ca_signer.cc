// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_signer.h"

#include <openssl/rand.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "control/ca/certificate_builder.h"
#include "control/ca/key_files.h"

namespace postern::ca {
namespace {

using store::CaRecord;
using store::CaRole;
using store::CaState;

// Root -> intermediate -> leaf, and nothing longer.
constexpr int kRootPathLength = 1;
constexpr int kIntermediatePathLength = 0;

// As x509::SerialHex reads it back: without leading zero bytes.
std::string SerialText(const SerialBytes& bytes) {
  const auto first = std::find_if(bytes.begin(), bytes.end() - 1, [](uint8_t b) { return b != 0; });
  return base::ToHex({first, bytes.end()});
}

absl::Time WholeSeconds(absl::Time time) {
  return absl::FromUnixSeconds(absl::ToUnixSeconds(time));
}

// A key of ours and the certificate that was made for it.
struct NewCa {
  x509::PkeyPtr key;
  x509::X509Ptr certificate;
  CaRecord record;
};

absl::StatusOr<NewCa> MakeCa(const CaOptions& options, CaRole role, const NewCa* issuer,
                             absl::Time now) {
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
                  .state = CaState::kCurrent,
                  .issuer_id = issuer == nullptr ? id : issuer->record.id,
                  .certificate_der = x509::CertificateToDer(certificate->get()),
                  .created_at = WholeSeconds(now)};
  return NewCa{*std::move(key), *std::move(certificate), std::move(record)};
}

// First start: keys under preliminary names, then the store's transaction. KeyFiles::Adopt follows
// in the caller, as after a crash right here.
absl::Status CreateFirstCas(const CaOptions& options, const KeyFiles& keys, store::CaStore& store,
                            absl::Time now) {
  const absl::StatusOr<bool> has_keys = keys.HasKeys();
  if (!has_keys.ok()) {
    return has_keys.status();
  }
  if (*has_keys) {
    return absl::FailedPreconditionError(base::StrCat(
        keys.directory(),
        " holds CA keys, but the store knows of no CA: restore identity.db from a backup, or move "
        "the keys away to begin with a new root"));
  }
  if (absl::Status status = keys.Discard(); !status.ok()) {
    return status;
  }
  const absl::StatusOr<NewCa> root = MakeCa(options, CaRole::kRoot, nullptr, now);
  if (!root.ok()) {
    return root.status();
  }
  const absl::StatusOr<NewCa> intermediate = MakeCa(options, CaRole::kIntermediate, &*root, now);
  if (!intermediate.ok()) {
    return intermediate.status();
  }
  for (const NewCa* made : {&*root, &*intermediate}) {
    absl::Status status =
        keys.Write(KeyFiles::FileName(made->record.role, made->record.id), made->key.get());
    if (!status.ok()) {
      return status;
    }
  }
  return store.AddCas({root->record, intermediate->record});
}

const CaRecord* FindCurrent(const std::vector<CaRecord>& records, CaRole role) {
  for (const CaRecord& record : records) {
    if (record.role == role && record.state == CaState::kCurrent) {
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

absl::StatusOr<std::shared_ptr<const SigningSlot>> LoadSlot(const std::vector<CaRecord>& records,
                                                            const KeyFiles& keys) {
  const CaRecord* intermediate = FindCurrent(records, CaRole::kIntermediate);
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
  const std::string name = KeyFiles::FileName(CaRole::kIntermediate, intermediate->id);
  absl::StatusOr<x509::PkeyPtr> key = keys.Read(name);
  if (!key.ok()) {
    return absl::FailedPreconditionError(
        base::StrCat("the intermediate's key ", keys.directory(), "/", name,
                     " cannot be used: ", base::Message(key.status())));
  }
  if (X509_check_private_key(certificate->get(), key->get()) != 1) {
    return absl::FailedPreconditionError(base::StrCat(
        keys.directory(), "/", name, " is not the key of the intermediate in the store"));
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

absl::StatusOr<std::shared_ptr<const x509::TrustBundleSet>> LoadBundles(
    const std::vector<CaRecord>& records, const x509::TrustDomain& trust_domain) {
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
  std::vector<x509::TrustBundle> bundles;
  bundles.push_back(*std::move(bundle));
  return std::make_shared<const x509::TrustBundleSet>(std::move(bundles));
}

absl::Status CheckTimes(const SigningSlot& slot, absl::Time now) {
  if (now >= slot.not_after) {
    return absl::FailedPreconditionError(
        base::StrCat("the CA expired at ", absl::FormatTime(slot.not_after, absl::UTCTimeZone()),
                     ": nothing is signed"));
  }
  const absl::Time not_before = x509::NotBefore(slot.chain.front().get());
  if (now < not_before) {
    return absl::FailedPreconditionError(base::StrCat(
        "the CA is not valid before ", absl::FormatTime(not_before, absl::UTCTimeZone()),
        ": this machine's clock is wrong"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SerialBytes> RandomSerial() {
  SerialBytes serial{};
  if (RAND_bytes(serial.data(), static_cast<int>(serial.size())) != 1) {
    return absl::InternalError("the random generator failed");
  }
  return serial;
}

CaSigner::CaSigner(CaOptions options, const base::Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

absl::StatusOr<std::unique_ptr<CaSigner>> CaSigner::Open(CaOptions options, store::CaStore& store,
                                                         const base::Clock& clock) {
  if (!options.serial_source) {
    options.serial_source = RandomSerial;
  }
  auto signer = std::unique_ptr<CaSigner>(new CaSigner(std::move(options), clock));
  if (absl::Status status = signer->Load(store); !status.ok()) {
    return status;
  }
  return signer;
}

absl::Status CaSigner::Load(store::CaStore& store) {
  const absl::StatusOr<KeyFiles> keys = KeyFiles::Open(options_.state_dir);
  if (!keys.ok()) {
    return keys.status();
  }
  absl::StatusOr<std::vector<CaRecord>> records = store.ListCas();
  if (records.ok() && records->empty()) {
    absl::Status status = CreateFirstCas(options_, *keys, store, clock_.Now());
    if (!status.ok()) {
      return status;
    }
    records = store.ListCas();
  }
  if (!records.ok()) {
    return records.status();
  }
  for (const CaRecord& record : *records) {
    absl::Status status = keys->Adopt(KeyFiles::FileName(record.role, record.id));
    if (!status.ok()) {
      return status;
    }
  }
  absl::StatusOr<std::shared_ptr<const SigningSlot>> slot = LoadSlot(*records, *keys);
  if (!slot.ok()) {
    return slot.status();
  }
  absl::StatusOr<std::shared_ptr<const x509::TrustBundleSet>> bundles =
      LoadBundles(*records, options_.trust_domain);
  if (!bundles.ok()) {
    return bundles.status();
  }
  const absl::StatusOr<store::Version> version = store.BundleVersion();
  if (!version.ok()) {
    return version.status();
  }
  const std::lock_guard lock(mutex_);
  current_ = *std::move(slot);
  bundles_ = *std::move(bundles);
  bundle_version_ = *version;
  return absl::OkStatus();
}

absl::StatusOr<SignedSvid> CaSigner::SignX509Svid(const SvidTemplate& wanted) const {
  if (wanted.id.trust_domain_name() != options_.trust_domain.name() || !wanted.id.IsWorkload()) {
    return absl::InvalidArgumentError(
        base::StrCat(wanted.id.uri(), " is no workload of ", options_.trust_domain.name()));
  }
  if (absl::Status status = x509::CheckKeyStrength(wanted.public_key); !status.ok()) {
    return status;
  }
  if (wanted.ttl <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("the time to live must be positive");
  }
  const absl::Time now = clock_.Now();
  const std::shared_ptr<const SigningSlot> slot = current();
  if (absl::Status status = CheckTimes(*slot, now); !status.ok()) {
    return status;
  }
  X509* issuer = slot->chain.front().get();
  const Validity validity{
      .not_before = WholeSeconds(std::max(now - wanted.backdate, x509::NotBefore(issuer))),
      .not_after = WholeSeconds(std::min(now + wanted.ttl, slot->not_after))};
  const absl::StatusOr<SerialBytes> serial = options_.serial_source();
  if (!serial.ok()) {
    return serial.status();
  }
  absl::StatusOr<std::string> leaf =
      BuildLeaf(wanted.id.uri(), wanted.public_key, *serial, validity,
                Issuing{.certificate = issuer, .key = slot->key.get()});
  if (!leaf.ok()) {
    return leaf.status();
  }
  return SignedSvid{.leaf_der = *std::move(leaf),
                    .signer = slot,
                    .serial = SerialText(*serial),
                    .not_before = validity.not_before,
                    .not_after = validity.not_after};
}

absl::StatusOr<CaSignature> CaSigner::SignBytes(base::ByteSpan data) const {
  std::shared_ptr<const SigningSlot> slot = current();
  if (absl::Status status = CheckTimes(*slot, clock_.Now()); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::string> signature = Sign(slot->key.get(), data);
  if (!signature.ok()) {
    return signature.status();
  }
  return CaSignature{.signature = *std::move(signature), .signer = std::move(slot)};
}

absl::Status CaSigner::CheckUsable() const {
  return CheckTimes(*current(), clock_.Now());
}

std::shared_ptr<const x509::TrustBundleSet> CaSigner::bundles() const {
  const std::lock_guard lock(mutex_);
  return bundles_;
}

store::Version CaSigner::bundle_version() const {
  const std::lock_guard lock(mutex_);
  return bundle_version_;
}

std::shared_ptr<const SigningSlot> CaSigner::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

bool CaSigner::root_key_present() const {
  const absl::StatusOr<base::Sha256Digest> digest =
      KeySha256(X509_get0_pubkey(current()->root.get()));
  const absl::StatusOr<KeyFiles> keys = KeyFiles::Open(options_.state_dir);
  return digest.ok() && keys.ok() &&
         keys->HasKey(KeyFiles::FileName(CaRole::kRoot, base::ToHex(*digest)));
}

}  // namespace postern::ca
