// SPDX-License-Identifier: Apache-2.0
// Connecting where there is a choice: names are resolved, one of several endpoints is dialled, and
// another one when that fails before a byte of the application's has flown.
#include <utility>

#include "common/base/enum_index.h"
#include "common/base/strings.h"
#include "proxy/session/session.h"

namespace postern::session {
namespace {

using base::CloseReason;
using base::Side;

// What says nothing of the endpoint: it is not held against it, and no other one would do better.
bool IsOurOwn(CloseReason reason) {
  return reason == CloseReason::kOverload || reason == CloseReason::kInternal ||
         reason == CloseReason::kNoIdentity || reason == CloseReason::kStaleTrust ||
         reason == CloseReason::kDrainDeadline;
}

}  // namespace

void Session::StartConnect(std::vector<Place> places) {
  Advance(Phase::kConnect);
  finder_ = std::make_unique<PlaceFinder>(
      worker_.loop, *worker_.names, std::move(places),
      [this](absl::StatusOr<std::vector<Candidate>> found) { OnPlaces(std::move(found)); });
  finder_->Start();
  if (phase_ == Phase::kConnect) {
    WatchDownstream();
  }
}

void Session::OnPlaces(absl::StatusOr<std::vector<Candidate>> candidates) {
  if (phase_ != Phase::kConnect) {
    return;
  }
  if (!candidates.ok()) {
    Fail(absl::IsResourceExhausted(candidates.status()) ? CloseReason::kOverload
                                                        : CloseReason::kConnectFailed,
         Side::kUpstream, candidates.status());
    return;
  }
  DialFirst(*std::move(candidates));
}

void Session::StartConnect(std::vector<Candidate> candidates) {
  Advance(Phase::kConnect);
  DialFirst(std::move(candidates));
  if (phase_ == Phase::kConnect) {
    WatchDownstream();
  }
}

void Session::DialFirst(std::vector<Candidate> candidates) {
  if (candidates.size() == 1) {
    OnCandidate(candidates.front());
    Dial(candidates.front().address);
    return;
  }
  route_ = std::make_unique<Route>(*worker_.endpoints, std::move(candidates));
  DialNext();
}

void Session::DialNext() {
  const Candidate& next = route_->Next();
  OnCandidate(next);
  ArmDeadline(Deadline::kConnect);
  Dial(next.address);
}

// Each attempt has its share of the time, so that the last one has what a single one would have.
std::chrono::milliseconds Session::Share(std::chrono::milliseconds limit) const {
  return route_ == nullptr ? limit : limit / static_cast<int64_t>(route_->left() + 1);
}

void Session::FailOver(base::Failure failure) {
  if (!TryElsewhere(failure)) {
    Fail(std::move(failure));
  }
}

bool Session::TryElsewhere(const base::Failure& failure) {
  const bool on_the_way = phase_ == Phase::kConnect || phase_ == Phase::kReconnect ||
                          (phase_ == Phase::kHandshake && failure.side == Side::kUpstream);
  if (route_ == nullptr || !on_the_way || IsOurOwn(failure.reason)) {
    return false;
  }
  route_->Failed();
  if (route_->left() == 0) {
    return false;
  }
  NoteAttempt(failure);
  dialer_.reset();
  if (upstream_ != nullptr) {
    upstream_->SetHandler(nullptr);
    upstream_->Refuse(-1);  // by the alert of the handshake, if it has made one
    upstream_.reset();
  }
  if (phase_ == Phase::kHandshake) {
    Advance(Phase::kReconnect);
  }
  DialNext();
  return true;
}

// An attempt that the application will not see is seen by the operator.
void Session::NoteAttempt(const base::Failure& failure) {
  const auto reason = base::At(failure.reason);
  worker_.metrics.endpoint_retries[reason].Add(1);
  if (phase_ == Phase::kHandshake) {
    worker_.metrics.handshake_failures[base::At(via_.direction)][reason].Add(1);
  }
  if (worker_.shared.failures != nullptr) {
    base::Failure told = failure;
    told.detail = {
        failure.detail.code(),
        base::ToAbsl(base::StrCat(base::Message(failure.detail), "; another endpoint is tried"))};
    worker_.shared.failures->Add(MakeRecord(told));
  }
}

}  // namespace postern::session
