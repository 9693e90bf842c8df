// SPDX-License-Identifier: Apache-2.0
#include "common/x509/root_life.h"

#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/base/time_text.h"
#include "common/x509/certificate.h"

namespace postern::x509 {

std::string AgingRoot::Sentence() const {
  return base::StrCat("the root ", subject, " of ", trust_domain,
                      expired ? " has expired at " : " has outlived half of its life and ends at ",
                      base::TimeText(not_after));
}

std::vector<AgingRoot> FindAgingRoots(const TrustBundleSet& bundles, absl::Time now) {
  std::vector<AgingRoot> aging;
  for (const auto& [name, bundle] : bundles.bundles()) {
    for (const X509Ptr& root : bundle.roots()) {
      const absl::Time begin = NotBefore(root.get());
      const absl::Time end = NotAfter(root.get());
      if (now >= begin + (end - begin) / 2) {
        aging.push_back({name, SubjectText(root.get()),
                         base::ToHex(Sha256OfCertificate(root.get())), end, now >= end});
      }
    }
  }
  return aging;
}

std::vector<AgingRoot> RootReminder::Look(const TrustBundleSet& bundles, absl::Time now) {
  std::vector<AgingRoot> due;
  std::map<std::string, Told> still;
  std::vector<AgingRoot> aging = FindAgingRoots(bundles, now);
  count_ = aging.size();
  for (AgingRoot& root : aging) {
    const auto before = told_.find(root.sha256);
    // A clock that was set back has told it in the future.
    const bool told = before != told_.end() && before->second.expired == root.expired &&
                      absl::AbsDuration(now - before->second.at) < kEvery;
    still.insert_or_assign(root.sha256, told ? before->second : Told{now, root.expired});
    if (!told) {
      due.push_back(std::move(root));
    }
  }
  told_ = std::move(still);
  return due;
}

}  // namespace postern::x509
