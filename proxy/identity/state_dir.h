// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"

namespace postern::v1 {
class ProxyState;
}  // namespace postern::v1

namespace postern::identity {

// The --state-dir of a proxy whose identity comes from the issuer: svid.pem, key.pem (0600),
// bundle.json and snapshot.pb, and seen_mesh.txt, which SeenList owns. Every file is replaced
// atomically, and a crash between two of them leaves a state that loads. Main loop only (the writes
// wait for the disk).
class StateDir {
 public:
  // Makes the directory if it is missing. PermissionDenied when others may enter it.
  static absl::StatusOr<StateDir> Open(std::string path);

  // NotFound: there is none. Its time is not judged.
  absl::StatusOr<x509::Svid> LoadSvid() const;
  absl::Status SaveSvid(const x509::Svid& svid) const;

  absl::StatusOr<x509::TrustBundleSet> LoadBundles(const x509::TrustDomain& own) const;
  absl::Status SaveBundles(const x509::TrustBundleSet& bundles) const;

  absl::Status LoadSnapshot(v1::ProxyState* state) const;
  absl::Status SaveSnapshot(const v1::ProxyState& state) const;

  std::string seen_list_path() const { return Path("seen_mesh.txt"); }

 private:
  explicit StateDir(std::string path) : path_(std::move(path)) {}
  std::string Path(const char* name) const { return path_ + "/" + name; }
  std::string path_;
};

}  // namespace postern::identity
