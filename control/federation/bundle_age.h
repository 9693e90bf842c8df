// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "control/federation/federation_spec.h"
#include "control/store/types.h"

namespace postern::federation {

// How old what is held of another trust domain is, and what that means. A value; its owner guards
// it.
class BundleAge {
 public:
  // `now`: from when the age counts of what no endpoint has ever confirmed (a bundle from a file).
  BundleAge(absl::Duration max_age, OnStale on_stale, absl::Time now)
      : max_age_(max_age), on_stale_(on_stale), begun_(now) {}

  // Looks at the age now; true: it has become stale, or fresh again, since the last look. Nothing
  // that is held cannot be stale.
  bool Look(const std::optional<store::ForeignBundle>& held, absl::Time now);

  bool stale() const { return stale_; }
  bool distrusted() const { return stale_ && on_stale_ == OnStale::kDistrust; }

 private:
  absl::Duration max_age_;
  OnStale on_stale_;
  absl::Time begun_;
  bool stale_ = false;
};

}  // namespace postern::federation
