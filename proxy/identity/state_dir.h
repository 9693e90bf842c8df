// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/directory_lock.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"

namespace postern::v1 {
class ProxyState;
}  // namespace postern::v1

namespace postern::identity {

// The --state-dir of a proxy whose identity comes from the issuer: svid.pem, key.pem (0600),
// bundle.json, snapshot.pb and confirmed, and seen_mesh.txt, which SeenList owns. Every file is
// replaced atomically, and a crash between two of them leaves a state that loads. Main loop only
// (the writes wait for the disk). Copies share one lock.
class StateDir {
 public:
  // Makes the directory if it is missing, and takes it for this process alone. PermissionDenied
  // when others may enter it, or read or change one of its files: a key that was readable is not
  // used as if it had not been. FailedPrecondition when another proxy has it.
  static absl::StatusOr<StateDir> Open(std::string path);

  // NotFound: there is none. Its time is not judged.
  absl::StatusOr<x509::Svid> LoadSvid() const;
  absl::Status SaveSvid(const x509::Svid& svid) const;

  absl::StatusOr<x509::TrustBundleSet> LoadBundles(const x509::TrustDomain& own) const;
  absl::Status SaveBundles(const x509::TrustBundleSet& bundles) const;

  absl::Status LoadSnapshot(v1::ProxyState* state) const;
  absl::Status SaveSnapshot(const v1::ProxyState& state) const;

  // When the issuer last confirmed all that is kept here, by this machine's clock; nullopt:
  // unknown.
  std::optional<absl::Time> LoadConfirmed() const;
  absl::Status SaveConfirmed(absl::Time at) const;

  std::string seen_list_path() const { return Path("seen_mesh.txt"); }

 private:
  StateDir(std::string path, std::shared_ptr<const base::DirectoryLock> lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string Path(const char* name) const { return path_ + "/" + name; }
  std::string path_;
  std::shared_ptr<const base::DirectoryLock> lock_;
};

}  // namespace postern::identity
