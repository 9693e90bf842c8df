// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/x509/crl.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/identity/watched_file.h"

namespace postern::identity {

// The CRLs of --crl: files, or directories all of whose files are read (names that begin with a dot
// are passed over). Each is used once its signature was verified: by a root of the bundles, by a CA
// certificate that lies beside it, or by one of our own chain. A file that is damaged, not verified
// or older than what it replaces leaves the last good CRL of that file in use, loudly. A file that
// is gone from its directory is withdrawn. Main loop only.
class CrlFiles {
 public:
  CrlFiles(const base::Clock& clock, std::vector<std::string> paths);

  // The first reading. InvalidArgument names the file: it is a fault of configuration.
  absl::Status LoadFirst();

  // About once a second, and when something happened to the files. True: verified() has changed.
  bool Poll();
  bool Reload();  // the same, without a look at what stat says

  // By whom CRLs can be verified besides. True: verified() has changed.
  bool SetTrust(std::shared_ptr<const x509::TrustBundleSet> bundles,
                std::shared_ptr<const x509::Svid> svid);

  std::vector<std::shared_ptr<const x509::Crl>> verified() const;

  bool empty() const { return paths_.empty(); }
  size_t stale() const;  // CRLs whose nextUpdate has passed
  uint64_t failures() const { return failures_; }
  const std::string& error() const { return error_; }  // of the last look; empty: all is well

 private:
  struct File {
    std::string content;
    x509::CrlContent parsed;
    std::vector<std::shared_ptr<const x509::Crl>> verified = {};
    std::string read_error = {};    // of its latest content; empty: it was read
    std::string verify_error = {};  // of what was read last; empty: it is in use
    bool said_stale = false;
  };

  absl::StatusOr<std::vector<std::string>> ListFiles() const;
  absl::Status ReadAll(bool first);
  absl::Status ReadOne(const std::string& path);
  bool Verify();
  absl::Status VerifyOne(const std::string& path, File& file,
                         const std::vector<x509::X509Ptr>& authorities);
  void Note(const File& file, std::string& error, const absl::Status& status);
  void SayStale();
  void SumUp();

  const base::Clock& clock_;
  const std::vector<std::string> paths_;
  WatchedFiles watched_;
  std::map<std::string, File> files_;  // by path
  std::shared_ptr<const x509::TrustBundleSet> bundles_;
  std::shared_ptr<const x509::Svid> svid_;
  uint64_t failures_ = 0;
  bool changed_ = false;  // something was read that Verify has not seen
  std::string list_error_;
  std::string error_;
};

}  // namespace postern::identity
