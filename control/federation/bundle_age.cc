// SPDX-License-Identifier: Apache-2.0
#include "control/federation/bundle_age.h"

namespace postern::federation {

bool BundleAge::Look(const std::optional<store::ForeignBundle>& held, absl::Time now) {
  bool stale = false;
  if (held.has_value()) {
    const bool confirmed = held->fetched_at != absl::UnixEpoch();
    stale = now - (confirmed ? held->fetched_at : begun_) > max_age_;
  }
  const bool changed = stale != stale_;
  stale_ = stale;
  return changed;
}

}  // namespace postern::federation
