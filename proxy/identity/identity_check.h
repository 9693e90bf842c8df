// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"

namespace postern::identity {

// Whether a certificate may be put into use: valid at `now`, and verified against the bundles as
// any peer would verify it, as a client and as a server. FailedPrecondition says what is wrong;
// `time_remark` (TrustClock::SkewRemark) is put behind it when it is about time. Pure.
absl::Status CheckIdentity(const x509::Svid& svid, const x509::TrustBundleSet& bundles,
                           absl::Time now, std::string_view time_remark = {});

}  // namespace postern::identity
