// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "absl/hash/hash.h"
#include "common/base/ip.h"

namespace postern::session {

// What was learned of the workload's permissive ports and of their clients, so that the next
// connection need not find it out by waiting. Shared by the workers, lives as long as they do; any
// thread. Of ports nothing is forgotten: a fact that is no longer true costs a connection of the
// proxy to the application that is made a little earlier than it had to be. So nothing is noted
// that a client who has proved nothing can bring about at will.
class PortMemory {
 public:
  enum class Fact : uint8_t {
    kServerFirst,  // the server has spoken to a client that was silent
    kMesh,         // a member of the mesh, with its certificate, was among the clients
  };

  bool Knows(Fact fact, uint16_t port) const {
    return (Word(fact, port).load(std::memory_order_relaxed) & Bit(port)) != 0;
  }
  void Note(Fact fact, uint16_t port) {
    if (!Knows(fact, port)) {
      Word(fact, port).fetch_or(Bit(port), std::memory_order_relaxed);
    }
  }
  // Whether a client from there was greeted in plaintext before. Addresses share places by their
  // hash: a wrong yes costs a client of an unknown address the time to be late in.
  bool WasGreeted(const base::IpAddress& ip) const {
    const uint16_t place = PlaceOf(ip);
    return (greeted_[place / kBitsInWord].load(std::memory_order_relaxed) & Bit(place)) != 0;
  }
  void NoteGreeted(const base::IpAddress& ip) {
    const uint16_t place = PlaceOf(ip);
    greeted_[place / kBitsInWord].fetch_or(Bit(place), std::memory_order_relaxed);
  }
  // It may be a member that was late.
  void ForgetGreeted(const base::IpAddress& ip) {
    const uint16_t place = PlaceOf(ip);
    greeted_[place / kBitsInWord].fetch_and(~Bit(place), std::memory_order_relaxed);
  }

 private:
  static constexpr unsigned kBitsInWord = 64;
  using Bits = std::array<std::atomic<uint64_t>, (1U << 16U) / kBitsInWord>;

  static constexpr uint64_t Bit(uint16_t port) { return uint64_t{1} << (port % kBitsInWord); }
  std::atomic<uint64_t>& Word(Fact fact, uint16_t port) {
    return bits_[static_cast<size_t>(fact)][port / kBitsInWord];
  }
  const std::atomic<uint64_t>& Word(Fact fact, uint16_t port) const {
    return bits_[static_cast<size_t>(fact)][port / kBitsInWord];
  }

  static uint16_t PlaceOf(const base::IpAddress& ip) {
    return static_cast<uint16_t>(absl::Hash<base::IpAddress>()(ip));
  }

  std::array<Bits, 2> bits_{};
  Bits greeted_{};
};

}  // namespace postern::session
