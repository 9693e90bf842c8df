// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_signer.h"

#include <openssl/rand.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "control/ca/ca_maker.h"
#include "control/ca/ca_view.h"
#include "control/ca/certificate_builder.h"
#include "control/ca/key_files.h"

namespace postern::ca {
namespace {

using store::CaRecord;
using store::CaRole;

// As x509::SerialHex reads it back: without leading zero bytes.
std::string SerialText(const SerialBytes& bytes) {
  const auto first = std::find_if(bytes.begin(), bytes.end() - 1, [](uint8_t b) { return b != 0; });
  return base::ToHex({first, bytes.end()});
}

absl::Time WholeSeconds(absl::Time time) {
  return absl::FromUnixSeconds(absl::ToUnixSeconds(time));
}

// First start. KeyFiles::Adopt follows in the caller, as after a crash right here.
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
  std::vector<NewCa> made;
  for (const CaRole role : {CaRole::kRoot, CaRole::kIntermediate}) {
    absl::StatusOr<NewCa> one = MakeCa(options, role, store::CaState::kCurrent,
                                       made.empty() ? nullptr : &made.front(), now);
    if (!one.ok()) {
      return one.status();
    }
    made.push_back(*std::move(one));
  }
  return StoreNewCas(made, keys, store);
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

absl::StatusOr<std::unique_ptr<CaSigner>> CaSigner::OpenPlugged(
    CaOptions options, std::shared_ptr<const SigningSlot> slot, PluggedRoots roots,
    store::Version version, const base::Clock& clock) {
  if (!options.serial_source) {
    options.serial_source = RandomSerial;
  }
  auto signer = std::unique_ptr<CaSigner>(new CaSigner(std::move(options), clock));
  signer->UseSlot(std::move(slot));
  if (absl::Status status = signer->UseRoots(std::move(roots), version); !status.ok()) {
    return status;
  }
  return signer;
}

void CaSigner::UseSlot(std::shared_ptr<const SigningSlot> slot) {
  const std::lock_guard lock(mutex_);
  current_ = std::move(slot);
}

absl::Status CaSigner::UseRoots(PluggedRoots roots, store::Version version) {
  absl::StatusOr<x509::TrustBundle> bundle =
      x509::TrustBundle::Create(options_.trust_domain, std::move(roots.trusted));
  if (!bundle.ok()) {
    return bundle.status();
  }
  bundle->SetRetiredRoots(std::move(roots.retired));
  std::vector<x509::TrustBundle> bundles;
  bundles.push_back(*std::move(bundle));
  auto set = std::make_shared<const x509::TrustBundleSet>(std::move(bundles));
  const std::lock_guard lock(mutex_);
  bundles_ = std::move(set);
  bundle_version_ = version;
  return absl::OkStatus();
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
  // What is still preliminary belongs to a CA that never came to be, or is no more.
  if (absl::Status status = keys->Discard(); !status.ok()) {
    return status;
  }
  return Reload(store, *keys);
}

absl::Status CaSigner::Reload(store::CaStore& store, const KeyFiles& keys) {
  const absl::StatusOr<std::vector<CaRecord>> records = store.ListCas();
  if (!records.ok()) {
    return records.status();
  }
  const absl::StatusOr<std::vector<store::WithdrawnCa>> withdrawn = store.ListWithdrawnCas();
  if (!withdrawn.ok()) {
    return withdrawn.status();
  }
  const absl::StatusOr<store::Version> version = store.BundleVersion();
  if (!version.ok()) {
    return version.status();
  }
  absl::StatusOr<CaView> view = LoadCaView(*records, *withdrawn, options_.trust_domain, keys);
  if (!view.ok()) {
    return view.status();
  }
  const std::lock_guard lock(mutex_);
  if (current_ == nullptr || current_->ca_id != view->current->ca_id) {
    current_ = std::move(view->current);
  }
  if (bundles_ == nullptr || bundle_version_ != *version) {
    bundles_ = std::move(view->bundles);
    bundle_version_ = *version;
  }
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
  // As for a leaf: a key in a token may not tell its type, the certificate does.
  const EVP_MD* digest = x509::SignatureDigest(X509_get0_pubkey(slot->chain.front().get()));
  absl::StatusOr<std::string> signature = Sign(slot->key.get(), digest, data);
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
