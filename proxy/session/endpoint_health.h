// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proxy/config/destinations.h"
#include "proxy/net/socket_address.h"
#include "proxy/telemetry/worker_metrics.h"

namespace postern::session {

// One of several places that a connection may be dialled at. A value.
struct Candidate {
  net::SocketAddress address;
  uint8_t rank = 0;  // a lower one is tried first: of a name, the family that the system prefers
  // What is expected there, where that is not the same for all of them; null: it is.
  std::shared_ptr<const config::MeshDestination> record = nullptr;
};

// What one worker has learned of the endpoints that it has a choice of: how many connections it has
// to each, and which of them failed lately. One that failed is left alone for a while, which
// doubles with each further failure; then a single connection tries it. Never a reason to refuse:
// where all are left alone, the one that is due first is tried. Bounded. Worker's thread.
class EndpointHealth {
 public:
  using Now = std::function<std::chrono::milliseconds()>;

  static constexpr std::chrono::milliseconds kFirstPause{1000};
  static constexpr std::chrono::milliseconds kLongestPause{30000};
  static constexpr std::chrono::milliseconds kForgetAfter{600000};
  static constexpr size_t kMostEndpoints = 4096;

  EndpointHealth(Now now, telemetry::WorkerMetrics& metrics,
                 uint32_t seed = std::random_device()());
  EndpointHealth(const EndpointHealth&) = delete;
  EndpointHealth& operator=(const EndpointHealth&) = delete;

  // Counts as a connection to its endpoint for as long as it lives; the EndpointHealth outlives it.
  class Use {
   public:
    Use() = default;
    Use(EndpointHealth& health, const net::SocketAddress& address);
    ~Use();
    Use(Use&& other) noexcept
        : health_(std::exchange(other.health_, nullptr)), address_(std::move(other.address_)) {}
    Use& operator=(Use&& other) noexcept {
      std::swap(health_, other.health_);
      std::swap(address_, other.address_);
      return *this;
    }

   private:
    EndpointHealth* health_ = nullptr;
    net::SocketAddress address_;
  };

  // In which order to try them, at most `most`. First, of those of the lowest rank that are well,
  // the one with fewer connections of two that chance picks; then the others that are well by rank;
  // then those that are left alone, the soonest due first.
  std::vector<size_t> Order(std::span<const Candidate> candidates, size_t most);

  void Failed(const net::SocketAddress& address);
  void Succeeded(const net::SocketAddress& address);
  // Forgets what failed long ago and was not dialled since. Call now and then.
  void Sweep();
  size_t size() const { return endpoints_.size(); }

 private:
  struct Endpoint {
    uint32_t open = 0;
    uint32_t failures = 0;               // one after the other
    std::chrono::milliseconds until{0};  // with failures: left alone
    std::chrono::milliseconds failed{0};
  };
  bool IsLeftAlone(const net::SocketAddress& address) const;
  uint32_t OpenTo(const net::SocketAddress& address) const;
  std::chrono::milliseconds DueAt(const net::SocketAddress& address) const;
  bool MakeRoom();
  void Recovered();

  const Now now_;
  telemetry::WorkerMetrics& metrics_;
  std::minstd_rand random_;
  absl::flat_hash_map<net::SocketAddress, Endpoint> endpoints_;
};

}  // namespace postern::session
