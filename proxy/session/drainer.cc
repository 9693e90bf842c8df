// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/drainer.h"

#include <algorithm>
#include <utility>

namespace postern::session {

Drainer::Drainer(net::Loop& loop, Hooks hooks)
    : loop_(loop),
      hooks_(std::move(hooks)),
      delay_(loop, [this] { OnDelay(); }),
      deadline_(loop, [this] { OnDeadline(); }) {}

void Drainer::Begin(std::chrono::milliseconds delay, std::chrono::milliseconds deadline,
                    std::function<void()> done) {
  const bool again = state_ == State::kDone;
  if (again && hooks_.open() == 0) {
    done();
    return;
  }
  done_.push_back(std::move(done));
  const std::chrono::milliseconds now = loop_.Now();
  const bool first = state_ == State::kIdle;
  ends_at_ = first || again ? now + deadline : std::min(ends_at_, now + deadline);
  deadline_.Start(ends_at_ - now);
  if (again) {
    state_ = State::kWaiting;
  } else if (first) {
    state_ = State::kAccepting;
  }
  if (state_ == State::kAccepting) {
    stops_at_ = first ? now + delay : std::min(stops_at_, now + delay);
    delay_.Start(stops_at_ - now);
  }
}

void Drainer::OnDelay() {
  if (state_ == State::kAccepting) {
    state_ = State::kWaiting;
    hooks_.stop_inbound();
    OnSessionGone();
  }
}

void Drainer::OnSessionGone() {
  if (state_ == State::kWaiting && hooks_.open() == 0) {
    Finish();
  }
}

void Drainer::OnDeadline() {
  if (state_ == State::kAccepting || state_ == State::kWaiting) {
    if (std::exchange(state_, State::kWaiting) == State::kAccepting) {
      hooks_.stop_inbound();
    }
    hooks_.end_everything();  // which may have finished already, by OnSessionGone
    Finish();
  }
}

void Drainer::Finish() {
  if (state_ == State::kDone) {
    return;
  }
  state_ = State::kDone;
  delay_.Stop();
  deadline_.Stop();
  for (const std::function<void()>& done : std::exchange(done_, {})) {
    done();
  }
}

}  // namespace postern::session
