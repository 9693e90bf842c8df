// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/clock_notes.h"

#include <string>

#include "common/base/strings.h"

namespace postern::session {

using base::CloseReason;

void RemarkClock(const WorkerShared& shared, base::Failure& failure) {
  const bool about_time = failure.reason == CloseReason::kPeerExpired ||
                          failure.reason == CloseReason::kPeerNotYetValid ||
                          failure.reason == CloseReason::kNoIdentity;
  if (!about_time || shared.times == nullptr) {
    return;
  }
  if (const std::string remark = shared.times->SkewRemark(); !remark.empty()) {
    failure.detail = absl::Status(
        failure.detail.code(), base::ToAbsl(base::StrCat(base::Message(failure.detail), remark)));
  }
}

std::optional<base::Failure> StaleTrust(const WorkerShared& shared, base::Side side) {
  if (shared.times == nullptr || shared.times->max_stale() == absl::InfiniteDuration()) {
    return std::nullopt;
  }
  const absl::Duration now = shared.clock->SinceBoot();
  if (!shared.times->IsStale(now)) {
    return std::nullopt;
  }
  base::Failure failure;
  failure.reason = CloseReason::kStaleTrust;
  failure.side = side;
  failure.detail = absl::FailedPreconditionError(shared.times->StaleText(now));
  return failure;
}

}  // namespace postern::session
