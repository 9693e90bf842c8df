// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/state_dir.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "postern/v1/state.pb.h"

namespace postern::identity {
namespace {

constexpr char kSvid[] = "svid.pem";
constexpr char kKey[] = "key.pem";
// The key of a certificate that is being saved: whichever of the two fits svid.pem is the key.
constexpr char kNextKey[] = "key.pem.next";
constexpr char kBundles[] = "bundle.json";
constexpr char kSnapshot[] = "snapshot.pb";
constexpr char kConfirmed[] = "confirmed";
constexpr mode_t kSecretMode = 0600;
constexpr size_t kLargestSnapshot = 64U << 20U;

absl::StatusOr<x509::Svid> Pair(const std::string& chain_pem, const std::string& key_path) {
  auto key_pem = base::ReadSecretFile(key_path);
  if (!key_pem.ok()) {
    return key_pem.status();
  }
  auto svid = x509::Svid::FromPem(chain_pem, *key_pem);
  OPENSSL_cleanse(key_pem->data(), key_pem->size());
  return svid;
}

}  // namespace

absl::StatusOr<StateDir> StateDir::Open(std::string path) {
  if (auto status = base::EnsurePrivateDirectory(path); !status.ok()) {
    return status;
  }
  auto lock = base::DirectoryLock::Take(path);
  if (!lock.ok()) {
    return lock.status();
  }
  for (const char* name : {kSvid, kKey, kNextKey, kBundles, kSnapshot, kConfirmed}) {
    const absl::Status status = base::CheckSecretFile(path + "/" + name);
    if (!status.ok() && !absl::IsNotFound(status)) {
      return status;
    }
  }
  return StateDir(std::move(path), std::make_shared<const base::DirectoryLock>(*std::move(lock)));
}

absl::StatusOr<x509::Svid> StateDir::LoadSvid() const {
  const auto chain_pem = base::ReadSecretFile(Path(kSvid));
  if (!chain_pem.ok()) {
    return chain_pem.status();
  }
  auto svid = Pair(*chain_pem, Path(kKey));
  if (svid.ok()) {
    return svid;
  }
  auto interrupted = Pair(*chain_pem, Path(kNextKey));
  return interrupted.ok() ? std::move(interrupted) : std::move(svid);
}

absl::Status StateDir::SaveSvid(const x509::Svid& svid) const {
  auto key_pem = x509::PrivateKeyToPem(svid.key());
  if (!key_pem.ok()) {
    return key_pem.status();
  }
  // At each moment one of the two key files fits the certificate.
  absl::Status status = base::WriteFileAtomically(Path(kNextKey), *key_pem, kSecretMode);
  if (status.ok()) {
    status =
        base::WriteFileAtomically(Path(kSvid), x509::CertificatesToPem(svid.chain()), kSecretMode);
  }
  if (status.ok()) {
    status = base::WriteFileAtomically(Path(kKey), *key_pem, kSecretMode);
  }
  OPENSSL_cleanse(key_pem->data(), key_pem->size());
  if (status.ok()) {
    unlink(Path(kNextKey).c_str());  // the same key; staying would harm nothing
  }
  return status;
}

absl::StatusOr<x509::TrustBundleSet> StateDir::LoadBundles(const x509::TrustDomain& own) const {
  const auto json = base::ReadSecretFile(Path(kBundles));
  if (!json.ok()) {
    return json.status();
  }
  return x509::TrustBundleSet::FromSpiffeJson(*json, own);
}

absl::Status StateDir::SaveBundles(const x509::TrustBundleSet& bundles) const {
  return base::WriteFileAtomically(Path(kBundles), bundles.ToSpiffeJson(), kSecretMode);
}

absl::Status StateDir::LoadSnapshot(v1::ProxyState* state) const {
  const auto bytes =
      base::ReadSecretFile(Path(kSnapshot), /*allow_symlink=*/false, kLargestSnapshot);
  if (!bytes.ok()) {
    return bytes.status();
  }
  if (!state->ParseFromString(*bytes)) {
    return absl::DataLossError(base::StrCat("'", Path(kSnapshot), "' is damaged"));
  }
  return absl::OkStatus();
}

std::optional<absl::Time> StateDir::LoadConfirmed() const {
  const auto text = base::ReadSecretFile(Path(kConfirmed));
  if (!text.ok()) {
    return std::nullopt;
  }
  const auto seconds = base::ParseNumber<int64_t>(*text);
  return seconds.has_value() ? std::optional(absl::FromUnixSeconds(*seconds)) : std::nullopt;
}

absl::Status StateDir::SaveConfirmed(absl::Time at) const {
  return base::WriteFileAtomically(Path(kConfirmed), std::to_string(absl::ToUnixSeconds(at)),
                                   kSecretMode);
}

absl::Status StateDir::SaveSnapshot(const v1::ProxyState& state) const {
  return base::WriteFileAtomically(Path(kSnapshot), state.SerializeAsString(), kSecretMode);
}

}  // namespace postern::identity
