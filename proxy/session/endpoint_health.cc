// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/endpoint_health.h"

#include <algorithm>

namespace postern::session {

using std::chrono::milliseconds;

EndpointHealth::EndpointHealth(Now now, telemetry::WorkerMetrics& metrics, uint32_t seed)
    : now_(std::move(now)), metrics_(metrics), random_(seed) {}

EndpointHealth::Use::Use(EndpointHealth& health, const net::SocketAddress& address)
    : health_(&health), address_(address) {
  ++health.endpoints_[address].open;
}

EndpointHealth::Use::~Use() {
  if (health_ == nullptr) {
    return;
  }
  const auto found = health_->endpoints_.find(address_);
  if (--found->second.open == 0 && found->second.failures == 0) {
    health_->endpoints_.erase(found);
  }
}

std::vector<size_t> EndpointHealth::Order(std::span<const Candidate> candidates, size_t most) {
  std::vector<size_t> well;
  std::vector<size_t> left_alone;
  for (size_t i = 0; i < candidates.size(); ++i) {
    (IsLeftAlone(candidates[i].address) ? left_alone : well).push_back(i);
  }
  std::shuffle(well.begin(), well.end(), random_);
  std::ranges::stable_sort(well, {}, [&](size_t i) { return candidates[i].rank; });
  // Chance has picked the first two: the shuffle.
  const bool two = well.size() >= 2 && candidates[well[0]].rank == candidates[well[1]].rank;
  if (two && OpenTo(candidates[well[1]].address) < OpenTo(candidates[well[0]].address)) {
    std::swap(well[0], well[1]);
  }
  std::ranges::stable_sort(left_alone, {}, [&](size_t i) { return DueAt(candidates[i].address); });
  well.insert(well.end(), left_alone.begin(), left_alone.end());
  well.resize(std::min(well.size(), most));
  if (!well.empty()) {
    // One connection tries an endpoint that has failed; until it knows, the others go elsewhere.
    const auto found = endpoints_.find(candidates[well.front()].address);
    if (found != endpoints_.end() && found->second.failures > 0) {
      found->second.until = std::max(found->second.until, now_() + kFirstPause);
    }
  }
  return well;
}

void EndpointHealth::Failed(const net::SocketAddress& address) {
  constexpr uint32_t kMostDoublings = 5;
  auto found = endpoints_.find(address);
  if (found == endpoints_.end()) {
    if (endpoints_.size() >= kMostEndpoints && !MakeRoom()) {
      return;
    }
    found = endpoints_.try_emplace(address).first;
  }
  Endpoint& endpoint = found->second;
  if (endpoint.failures == 0) {
    metrics_.endpoints_failing_began.Add(1);
  }
  metrics_.endpoint_failures.Add(1);
  endpoint.failed = now_();
  endpoint.until =
      endpoint.failed +
      std::min(kFirstPause * (1U << std::min(endpoint.failures, kMostDoublings)), kLongestPause);
  ++endpoint.failures;
}

void EndpointHealth::Succeeded(const net::SocketAddress& address) {
  const auto found = endpoints_.find(address);
  if (found != endpoints_.end() && std::exchange(found->second.failures, 0U) > 0) {
    Recovered();
    if (found->second.open == 0) {
      endpoints_.erase(found);
    }
  }
}

void EndpointHealth::Sweep() {
  const milliseconds before = now_() - kForgetAfter;
  absl::erase_if(endpoints_, [&](const auto& entry) {
    const Endpoint& endpoint = entry.second;
    const bool old = endpoint.open == 0 && endpoint.failures > 0 && endpoint.failed < before;
    if (old) {
      Recovered();
    }
    return old;
  });
}

// Of those that nobody uses, the one that failed first.
bool EndpointHealth::MakeRoom() {
  auto oldest = endpoints_.end();
  for (auto at = endpoints_.begin(); at != endpoints_.end(); ++at) {
    if (at->second.open == 0 &&
        (oldest == endpoints_.end() || at->second.failed < oldest->second.failed)) {
      oldest = at;
    }
  }
  if (oldest == endpoints_.end()) {
    return false;
  }
  Recovered();
  endpoints_.erase(oldest);
  return true;
}

void EndpointHealth::Recovered() {
  metrics_.endpoints_failing_ended.Add(1);
}

bool EndpointHealth::IsLeftAlone(const net::SocketAddress& address) const {
  const auto found = endpoints_.find(address);
  return found != endpoints_.end() && found->second.failures > 0 && now_() < found->second.until;
}

uint32_t EndpointHealth::OpenTo(const net::SocketAddress& address) const {
  const auto found = endpoints_.find(address);
  return found != endpoints_.end() ? found->second.open : 0;
}

milliseconds EndpointHealth::DueAt(const net::SocketAddress& address) const {
  const auto found = endpoints_.find(address);
  return found != endpoints_.end() ? found->second.until : milliseconds(0);
}

}  // namespace postern::session
