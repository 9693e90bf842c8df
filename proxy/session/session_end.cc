// SPDX-License-Identifier: Apache-2.0
// How a session ends: the one error exit Fail, the one end Close, and what comes between where a
// refused peer is told why.
#include <utility>

#include "common/base/enum_index.h"
#include "proxy/session/clock_notes.h"
#include "proxy/session/session.h"
#include "proxy/session/session_table.h"

namespace postern::session {
namespace {

using base::At;
using base::CloseReason;
using base::Side;

// A refused peer is read for so many bytes, lest it talks for ever.
constexpr uint32_t kMaxDiscarded = 256U << 10U;

}  // namespace

void Session::Finish() {
  base::Failure end;
  end.reason = CloseReason::kOk;
  Record(end);
  Close();
}

void Session::Fail(base::CloseReason reason, base::Side side, absl::Status detail, int alert) {
  Fail(FailureOf(reason, side, std::move(detail)), alert);
}

void Session::FailBy(const Transport& transport, Side side) {
  Fail(FailureOf(transport, side));
}

void Session::Fail(base::Failure failure, int alert) {
  if (IsOver()) {
    return;
  }
  RemarkClock(worker_.shared, failure);
  if (relay_.has_value()) {
    relay_->Stop();
  }
  Transport* const mesh = mesh_transport();
  if (failure.peer_id.empty() && mesh != nullptr && mesh->peer() != nullptr) {
    failure.peer_id = mesh->peer()->id.uri();
  }
  const bool may_linger = PhasesOf(via_.direction)[At(phase_)].Allows(Phase::kLinger);
  Transport* refused = nullptr;
  if (mesh != nullptr && may_linger && mesh->Refuse(alert)) {
    refused = mesh;
    failure.alert_sent = alert >= 0 ? alert : failure.alert_sent;
  }
  Record(failure);
  Transport* const told = may_linger && TellDownstream(failure) ? downstream_.get() : nullptr;
  for (Transport* transport : {downstream_.get(), upstream_.get()}) {
    if (transport != nullptr && transport != refused && transport != told) {
      transport->Reset();
    }
  }
  lingering_ = static_cast<uint8_t>((refused != nullptr ? 1 : 0) + (told != nullptr ? 1 : 0));
  if (lingering_ > 0) {
    Linger();
  } else {
    Close();
  }
}

// Closing at once, with the peer's bytes unread, would send RST, and RST overtakes the alert or the
// reply. A transport that was reset already tells nothing any more.
void Session::Linger() {
  Advance(Phase::kLinger);
  for (Transport* transport : {downstream_.get(), upstream_.get()}) {
    if (transport != nullptr) {
      transport->SetHandler(this);
      transport->WantRead(true);
    }
  }
}

void Session::DiscardFromRefused(Transport& refused) {
  const TransportResult read = refused.Discard(worker_.relay_scratch);
  discarded_ += static_cast<uint32_t>(read.bytes);
  const bool over =
      read.outcome == TransportOutcome::kEnd || read.outcome == TransportOutcome::kFailed;
  if (over) {
    refused.WantRead(false);
    --lingering_;
  }
  if (lingering_ == 0 || discarded_ > kMaxDiscarded) {
    Close();
  }
}

void Session::Close() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  Advance(Phase::kClosed);
  UnwatchPeer();
  for (Transport* transport : {downstream_.get(), upstream_.get()}) {
    if (transport != nullptr) {
      transport->SetHandler(nullptr);
      transport->WantRead(false);
    }
  }
  worker_.table.Remove(*this);
}

base::Failure Session::FailureOf(CloseReason reason, Side side, absl::Status detail) {
  base::Failure failure;
  failure.reason = reason;
  failure.side = side;
  failure.detail = std::move(detail);
  return failure;
}

base::Failure Session::FailureOf(const Transport& transport, Side side) {
  base::Failure failure = transport.failure();
  failure.side = side;
  return failure;
}

}  // namespace postern::session
