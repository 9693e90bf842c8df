// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace postern::session {

// What was learned of the workload's permissive ports, so that the next connection there need not
// find it out by waiting. Shared by the workers, lives as long as they do; any thread. Nothing is
// forgotten: a fact that is no longer true costs a connection of the proxy to the application that
// is made a little earlier than it had to be.
class PortMemory {
 public:
  enum class Fact : uint8_t {
    kServerFirst,  // the server has spoken to a client that was silent
    kMesh,         // a member of the mesh was among the clients
  };

  bool Knows(Fact fact, uint16_t port) const {
    return (Word(fact, port).load(std::memory_order_relaxed) & Bit(port)) != 0;
  }
  void Note(Fact fact, uint16_t port) {
    if (!Knows(fact, port)) {
      Word(fact, port).fetch_or(Bit(port), std::memory_order_relaxed);
    }
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

  std::array<Bits, 2> bits_{};
};

}  // namespace postern::session
