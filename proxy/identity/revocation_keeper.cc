// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/revocation_keeper.h"

#include <utility>

namespace postern::identity {

RevocationKeeper::RevocationKeeper(const base::Clock& clock, std::vector<std::string> crl_paths,
                                   Publish publish)
    : publish_(std::move(publish)), crls_(clock, std::move(crl_paths)) {}

absl::Status RevocationKeeper::LoadFirst() {
  if (crls_.empty()) {
    return absl::OkStatus();
  }
  const absl::Status loaded = crls_.LoadFirst();
  Renew();
  return loaded;
}

void RevocationKeeper::Start() {
  started_ = true;
  if (set_ != nullptr) {
    publish_(set_);
  }
}

void RevocationKeeper::Renew() {
  set_ = std::make_shared<const x509::RevocationSet>(list_, crls_.verified());
  if (started_) {
    publish_(set_);
  }
}

void RevocationKeeper::SetList(std::vector<x509::Revocation> revocations, const Version& version) {
  list_ = std::move(revocations);
  version_ = version;
  Renew();
}

void RevocationKeeper::SetTrust(std::shared_ptr<const x509::TrustBundleSet> bundles,
                                std::shared_ptr<const x509::Svid> svid) {
  if (crls_.SetTrust(std::move(bundles), std::move(svid))) {
    Renew();
  }
}

void RevocationKeeper::Poll() {
  if (crls_.Poll()) {
    Renew();
  }
}

void RevocationKeeper::Reload() {
  if (crls_.Reload()) {
    Renew();
  }
}

void RevocationKeeper::Describe(IdentityStatus& status) const {
  status.revocation_version = version_;
  status.revocations = list_.size();
  for (const auto& crl : crls_.verified()) {
    ++status.crls;
    status.crl_entries += crl->revoked.size();
  }
  status.crls_stale = crls_.stale();
  status.crl_error = crls_.error();
  status.reload_failures += crls_.failures();
}

}  // namespace postern::identity
