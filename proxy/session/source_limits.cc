// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/source_limits.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"

namespace postern::session {
namespace {

using base::CloseReason;

// Stalled clients have a deadline; more at once than this would only make all of them late.
constexpr size_t kHandshakesUnasked = 2048;

constexpr size_t kShareOfConnections = 7;  // times what is left
constexpr size_t kShareOfHandshakes = 4;   // the part of what is left
constexpr size_t kAlwaysHandshakes = 16;   // lest small limits leave nothing to share

// What may come at once: two seconds' worth, and never so little that a client's pool trips.
constexpr uint32_t kBurstSeconds = 2;
constexpr uint32_t kSmallestBurst = 10;

constexpr size_t kIpv6Network = 8;  // bytes of a /64

bool IsLinkLocal(base::ByteSpan ip) {
  return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;  // RFC 4291 section 2.5.6
}

bool IsBeyond(uint32_t count, uint32_t limit) {
  return limit != 0 && count > limit;
}

}  // namespace

SourceHold::SourceHold(SourceHold&& other) noexcept
    : limits_(other.limits_),
      source_(other.source_),
      peer_(other.peer_),
      parts_(std::exchange(other.parts_, uint8_t{0})) {}

SourceHold& SourceHold::operator=(SourceHold&& other) noexcept {
  if (this != &other) {
    Release();
    limits_ = other.limits_;
    source_ = other.source_;
    peer_ = other.peer_;
    parts_ = std::exchange(other.parts_, uint8_t{0});
  }
  return *this;
}

void SourceHold::Mark(Part part, bool counted) {
  if (counted) {
    parts_ = static_cast<uint8_t>(parts_ | part);
  }
}

void SourceHold::EndHandshake() {
  if ((parts_ & kHandshake) != 0) {
    parts_ = static_cast<uint8_t>(parts_ & ~kHandshake);
    limits_->handshakes_.Remove(source_);
  }
}

void SourceHold::Release() {
  EndHandshake();
  if ((parts_ & kConnection) != 0) {
    limits_->connections_.Remove(source_);
  }
  if ((parts_ & kPeer) != 0) {
    limits_->peers_->Remove(peer_);
  }
  parts_ = 0;
}

SourceLimits::SourceLimits(const config::ProxyConfig& config, size_t connections)
    : max_handshakes_(config.max_handshakes_per_source),
      max_connections_(config.max_connections_per_source),
      max_peer_connections_(config.max_connections_per_peer),
      handshakes_(connections),
      connections_(connections) {
  if (max_peer_connections_ != 0) {
    peers_ = std::make_unique<CountTable>(connections);
  }
  if (config.max_rate_per_source != 0) {
    rate_ = std::make_unique<RateTable>(
        config.max_rate_per_source,
        std::max(config.max_rate_per_source * kBurstSeconds, kSmallestBurst));
  }
}

uint64_t SourceLimits::HashOf(const base::IpAddress& ip) const {
  const base::ByteSpan bytes = ip.bytes();
  return base::SipHash(key_, ip.is_v4() || IsLinkLocal(bytes) ? bytes : bytes.first(kIpv6Network));
}

std::optional<SourceLimits::Refusal> SourceLimits::Admit(const net::SocketAddress& source,
                                                         const Room& room,
                                                         std::chrono::milliseconds now,
                                                         SourceHold& hold) {
  hold.Release();
  if (source.is_unix() || source.ip().IsLoopback()) {
    return std::nullopt;
  }
  hold.limits_ = this;
  hold.source_ = HashOf(source.ip());
  hold.Mark(SourceHold::kBounded, true);
  std::optional<Refusal> refusal = CountConnection(room, hold);
  if (!refusal.has_value()) {
    refusal = CountHandshake(room, hold);
  }
  if (refusal.has_value()) {
    hold.Release();
    return refusal;
  }
  // Last, so that what is refused for another reason costs no token.
  if (rate_ != nullptr && !rate_->Take(hold.source_, now)) {
    hold.Release();
    return Refusal{CloseReason::kSourceRate,
                   "the source opens connections faster than --max-rate-per-source"};
  }
  return std::nullopt;
}

std::optional<SourceLimits::Refusal> SourceLimits::AdmitHandshake(const Room& room,
                                                                  SourceHold& hold) {
  if ((hold.parts_ & SourceHold::kBounded) == 0 || (hold.parts_ & SourceHold::kHandshake) != 0) {
    return std::nullopt;
  }
  std::optional<Refusal> refusal = CountHandshake(room, hold);
  if (refusal.has_value()) {
    hold.EndHandshake();
  }
  return refusal;
}

// These two count first and judge after: so no two threads can both take the last place.
std::optional<SourceLimits::Refusal> SourceLimits::CountConnection(const Room& room,
                                                                   SourceHold& hold) {
  const uint32_t connections = connections_.Add(hold.source_);
  hold.Mark(SourceHold::kConnection, connections > 0);
  if (IsBeyond(connections, max_connections_)) {
    return Refusal{CloseReason::kSourceConnections,
                   "the source has --max-connections-per-source connections"};
  }
  if (connections > kShareOfConnections * room.connections * room.workers) {
    return Refusal{CloseReason::kSourceConnections,
                   "the source has its share of the connections that there may be"};
  }
  return std::nullopt;
}

std::optional<SourceLimits::Refusal> SourceLimits::CountHandshake(const Room& room,
                                                                  SourceHold& hold) {
  const uint32_t handshakes = handshakes_.Add(hold.source_);
  hold.Mark(SourceHold::kHandshake, handshakes > 0);
  if (IsBeyond(handshakes, max_handshakes_)) {
    return Refusal{CloseReason::kSourceHandshakes,
                   "the source has --max-handshakes-per-source handshakes under way"};
  }
  const size_t places = std::min(room.handshakes, room.connections) * room.workers;
  if (handshakes > std::max(places / kShareOfHandshakes, kAlwaysHandshakes)) {
    return Refusal{CloseReason::kSourceHandshakes,
                   "the source has its share of the handshakes that may be under way"};
  }
  return std::nullopt;
}

std::optional<SourceLimits::Refusal> SourceLimits::AdmitPeer(std::string_view spiffe_id,
                                                             SourceHold& hold) {
  if (peers_ == nullptr || (hold.parts_ & SourceHold::kPeer) != 0) {
    return std::nullopt;
  }
  hold.limits_ = this;
  hold.peer_ = base::SipHash(key_, base::AsBytes(spiffe_id));
  const uint32_t connections = peers_->Add(hold.peer_);
  if (IsBeyond(connections, max_peer_connections_)) {
    peers_->Remove(hold.peer_);
    return Refusal{CloseReason::kPeerConnections,
                   "the peer has --max-connections-per-peer connections"};
  }
  hold.Mark(SourceHold::kPeer, connections > 0);
  return std::nullopt;
}

uint32_t SourceLimits::HandshakesForTest(const net::SocketAddress& source) const {
  return handshakes_.Count(HashOf(source.ip()));
}

uint32_t SourceLimits::ConnectionsForTest(const net::SocketAddress& source) const {
  return connections_.Count(HashOf(source.ip()));
}

size_t HandshakesOfWorker(const config::ProxyConfig& config) {
  if (config.max_handshakes == 0) {
    return kHandshakesUnasked;
  }
  return std::max<size_t>(config.max_handshakes / std::max(config.workers, 1U), 1);
}

}  // namespace postern::session
