// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/x509/revocation_set.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/identity/snapshot.h"
#include "proxy/identity/status.h"
#include "proxy/policy/policy_set.h"

namespace postern::identity {

// Where a source puts what it has. Implemented by IdentityManager. Main loop only.
class SourceSink {
 public:
  virtual ~SourceSink() = default;
  // Checked already (CheckIdentity); may be used from now on.
  virtual void OnIdentity(std::shared_ptr<const x509::Svid> svid,
                          std::shared_ptr<const x509::TrustBundleSet> bundles,
                          const Version& bundle_version) = 0;
  // The issuer's policy, the full set. An error: refused, the last good one goes on.
  virtual absl::Status OnPolicyDocuments(std::vector<policy::NamedYaml> documents,
                                         const Version& version) = 0;
  // What the issuer has revoked, the full list, verified. Before the first OnIdentity when it is
  // known by then.
  virtual void OnRevocations(std::vector<x509::Revocation> revocations, const Version& version) = 0;
  // Describe would say something new.
  virtual void OnSourceChanged() = 0;
};

// Where the identity of this proxy comes from: FileSource or IssuerSource. Main loop only.
class Source {
 public:
  virtual ~Source() = default;
  virtual void Start() = 0;
  // SIGHUP: look again at everything that is read from files.
  virtual void Reload() = 0;
  // An operator wants a new certificate now. Only a source that asks for its certificates can.
  virtual void Renew() {}
  // Something happened to files that this source may read from: look at them now.
  virtual void OnFileEvent() {}
  // Fills the fields that are this source's.
  virtual void Describe(IdentityStatus& status) const = 0;
};

}  // namespace postern::identity
