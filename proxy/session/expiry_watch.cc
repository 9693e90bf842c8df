// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/expiry_watch.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/time/time.h"

namespace postern::session {
namespace {

// At most so many at a time: the others wait for the next turn of the loop.
constexpr size_t kPortion = 32;
constexpr int64_t kMostPauseMs = 1000;

}  // namespace

ExpiryWatch::ExpiryWatch(net::Loop& loop, const base::Clock& clock,
                         std::function<void(uint64_t)> visit)
    : clock_(clock), visit_(std::move(visit)), timer_(loop, [this] { OnTimer(); }) {}

int64_t ExpiryWatch::Now() const {
  return absl::ToUnixMillis(clock_.Now());
}

void ExpiryWatch::Move(uint64_t id, int64_t former, int64_t at) {
  if (former != 0) {
    due_.erase(std::pair(former, id));
  }
  if (at != 0) {
    due_.emplace(at, id);
    if (armed_for_ == 0 || at < armed_for_) {
      Arm();
    }
  }
}

void ExpiryWatch::OnTimer() {
  armed_for_ = 0;
  const int64_t now = Now();
  std::vector<uint64_t> ids;
  while (!due_.empty() && due_.begin()->first <= now && ids.size() < kPortion) {
    ids.push_back(due_.begin()->second);
    due_.erase(due_.begin());
  }
  for (const uint64_t id : ids) {
    visit_(id);
  }
  Arm();
}

void ExpiryWatch::Arm() {
  if (due_.empty()) {
    armed_for_ = 0;
    timer_.Stop();
    return;
  }
  armed_for_ = due_.begin()->first;
  const int64_t pause = std::clamp<int64_t>(armed_for_ - Now(), 1, kMostPauseMs);
  timer_.Start(std::chrono::milliseconds(pause));
}

}  // namespace postern::session
