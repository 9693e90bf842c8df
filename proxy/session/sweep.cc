// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/sweep.h"

#include <algorithm>
#include <utility>

namespace postern::session {

Sweep::Sweep(net::Loop& loop, std::chrono::milliseconds period, Source source)
    : period_(period),
      source_(std::move(source)),
      timer_(loop, [this] { OnTimer(); }),
      pause_(period) {}

void Sweep::Start() {
  timer_.Start(period_);
}

void Sweep::OnTimer() {
  if (left_.empty()) {
    BeginRound();
  }
  const size_t count = std::min(portion_, left_.size());
  for (size_t i = 0; i < count; ++i) {
    const uint64_t id = left_.back();
    left_.pop_back();
    source_.visit(id);
  }
  timer_.Start(pause_);
}

void Sweep::BeginRound() {
  left_ = source_.list();
  const size_t most = std::max<size_t>(static_cast<size_t>(period_ / kLeastPause), 1);
  const size_t portions = std::clamp<size_t>((left_.size() + kPortion - 1) / kPortion, 1, most);
  portion_ = (left_.size() + portions - 1) / portions;
  pause_ = period_ / portions;
}

}  // namespace postern::session
