// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/x509/revocation_set.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/identity/crl_files.h"
#include "proxy/identity/snapshot.h"
#include "proxy/identity/status.h"

namespace postern::identity {

// Puts together what is revoked, from the issuer's list and the CRL files, and publishes it
// whenever one of the two has changed. Main loop only.
class RevocationKeeper {
 public:
  using Publish = std::function<void(std::shared_ptr<const x509::RevocationSet>)>;

  RevocationKeeper(const base::Clock& clock, std::vector<std::string> crl_paths, Publish publish);

  absl::Status LoadFirst();  // the CRL files; InvalidArgument names the file
  // Publishes from now on, and what is there already.
  void Start();

  void SetList(std::vector<x509::Revocation> revocations, const Version& version);
  void SetTrust(std::shared_ptr<const x509::TrustBundleSet> bundles,
                std::shared_ptr<const x509::Svid> svid);
  void Poll();    // about once a second
  void Reload();  // SIGHUP

  void Describe(IdentityStatus& status) const;

 private:
  void Renew();

  const Publish publish_;
  CrlFiles crls_;
  std::vector<x509::Revocation> list_;
  Version version_;
  std::shared_ptr<const x509::RevocationSet> set_;  // null: nothing was ever known
  bool started_ = false;
};

}  // namespace postern::identity
