// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/x509/trust_bundle.h"

namespace postern::x509 {

// A root that has outlived half of its life (notBefore to notAfter): time to think of the next one,
// for every certificate under it ends with it. A value.
struct AgingRoot {
  std::string trust_domain;
  std::string subject;
  std::string sha256;  // hex, of its DER
  absl::Time not_after;
  bool expired = false;

  // "the root CN=x of example.org has outlived half of its life and ends at 2031-01-31T12:00:00Z"
  std::string Sentence() const;
};

// Those of `bundles` at `now`, by trust domain.
std::vector<AgingRoot> FindAgingRoots(const TrustBundleSet& bundles, absl::Time now);

// Which of them an operator is to be reminded of, so that a log says it and does not repeat it all
// the time. Not thread-safe.
class RootReminder {
 public:
  static constexpr absl::Duration kEvery = absl::Hours(24 * 7);

  // Those to be told of now: seen for the first time, told kEvery ago, or expired since.
  std::vector<AgingRoot> Look(const TrustBundleSet& bundles, absl::Time now);

  // How many there were at the last Look.
  size_t count() const { return count_; }

 private:
  struct Told {
    absl::Time at;
    bool expired = false;
  };
  std::map<std::string, Told> told_;  // by sha256; of roots that are there still
  size_t count_ = 0;
};

}  // namespace postern::x509
