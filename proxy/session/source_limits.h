// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/close_reason.h"
#include "common/base/ip.h"
#include "common/base/siphash.h"
#include "proxy/config/proxy_config.h"
#include "proxy/net/socket_address.h"
#include "proxy/session/count_table.h"
#include "proxy/session/rate_table.h"

namespace postern::session {

class SourceLimits;

// What one inbound connection counts for: a connection of its source, a handshake of its source
// while one is under way, a connection of its peer once that is known. Takes all of it back when it
// goes. Empty for what is not counted. Owned by its session; worker's thread.
class SourceHold {
 public:
  SourceHold() = default;
  SourceHold(SourceHold&& other) noexcept;
  SourceHold& operator=(SourceHold&& other) noexcept;
  ~SourceHold() { Release(); }

  // The handshake is over, or there is none to come. Idempotent.
  void EndHandshake();
  // Everything is. Idempotent.
  void Release();

 private:
  friend class SourceLimits;
  // kBounded: the source is one that is bounded.
  enum Part : uint8_t { kHandshake = 1, kConnection = 2, kPeer = 4, kBounded = 8 };
  void Mark(Part part, bool counted);

  SourceLimits* limits_ = nullptr;  // outlives it
  uint64_t source_ = 0;             // hash
  uint64_t peer_ = 0;               // hash
  uint8_t parts_ = 0;
};

// How much one source may have at a time, and how fast it may come: an IPv4 address or an IPv6 /64
// (a link-local address by itself), over all workers. Two kinds of bounds:
//  - what the config says (0: nothing), and
//  - a share of the room that is left: a source may have a quarter as many handshakes under way as
//    there are places for more, or sixteen, and seven times as many connections as there are. So
//    one source that takes whatever it can get leaves four fifths of the handshakes to others, and
//    an eighth of the connections.
// Sources on this host (loopback, unix sockets) are not bounded: they may be a load balancer that
// stands for everybody. Shared by the workers, without a lock; fixed memory. Any thread.
class SourceLimits {
 public:
  // `connections`: how many the whole proxy may have at once.
  SourceLimits(const config::ProxyConfig& config, size_t connections);
  SourceLimits(const SourceLimits&) = delete;
  SourceLimits& operator=(const SourceLimits&) = delete;

  // What the worker that asks still has places for, and how many workers there are.
  struct Room {
    size_t handshakes = 0;
    size_t connections = 0;
    size_t workers = 1;
  };
  struct Refusal {
    base::CloseReason reason;
    std::string_view why;  // a sentence; lives for ever
  };

  // Whether a connection from `source` is let in, at time `now` (since any start, the same for all
  // workers). Then `hold` counts it; else nothing is counted, and why not is returned.
  std::optional<Refusal> Admit(const net::SocketAddress& source, const Room& room,
                               std::chrono::milliseconds now, SourceHold& hold);
  // The same for a connection that `hold` counts, whose handshake was over or was not to come, and
  // begins after all. `room.handshakes`: without it.
  std::optional<Refusal> AdmitHandshake(const Room& room, SourceHold& hold);
  // The same for its peer, whose SPIFFE ID was verified since.
  std::optional<Refusal> AdmitPeer(std::string_view spiffe_id, SourceHold& hold);

  // For tests.
  uint32_t HandshakesForTest(const net::SocketAddress& source) const;
  uint32_t ConnectionsForTest(const net::SocketAddress& source) const;

 private:
  friend class SourceHold;
  uint64_t HashOf(const base::IpAddress& ip) const;
  std::optional<Refusal> CountConnection(const Room& room, SourceHold& hold);
  std::optional<Refusal> CountHandshake(const Room& room, SourceHold& hold);

  const base::SipKey key_ = base::SipKey::Random();
  const uint32_t max_handshakes_;
  const uint32_t max_connections_;
  const uint32_t max_peer_connections_;
  CountTable handshakes_;
  CountTable connections_;
  std::unique_ptr<CountTable> peers_;  // null: not bounded
  std::unique_ptr<RateTable> rate_;    // likewise
};

// How many handshakes one worker may have under way in each direction before it stops to accept:
// its share of --max-handshakes.
size_t HandshakesOfWorker(const config::ProxyConfig& config);

}  // namespace postern::session
