// SPDX-License-Identifier: Apache-2.0
#include "cli/run/doorway.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace postern::run {
namespace {

using std::chrono::seconds;

constexpr int kBacklog = 4096;
// Loopback needs none of it. What comes later is reset, lest somebody else comes from its port.
constexpr seconds kForgottenAfter{20};
constexpr std::chrono::milliseconds kRest{50};

base::IpAddress Loopback(int domain) {
  return base::IpAddress::Parse(domain == AF_INET ? "127.0.0.1" : "::1").value();
}

absl::StatusOr<base::UniqueFd> ListenOnLoopback(int domain) {
  base::UniqueFd fd(socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const Address address = MakeAddress(domain, Loopback(domain), 0);
  if (!fd.is_open() ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return absl::ErrnoToStatus(errno, "listening on loopback");
  }
  return fd;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Doorway>> Doorway::Open(EventLoop& loop, ProxyLink& link) {
  std::unique_ptr<Doorway> doorway(new Doorway(loop, link));
  absl::StatusOr<base::UniqueFd> v4 = ListenOnLoopback(AF_INET);
  if (!v4.ok()) {
    return v4.status();
  }
  doorway->v4_ = *std::move(v4);
  if (absl::StatusOr<base::UniqueFd> v6 = ListenOnLoopback(AF_INET6); v6.ok()) {
    doorway->v6_ = *std::move(v6);
  }
  for (auto [fd, port] : {std::pair(&doorway->v4_, &doorway->v4_port_),
                          std::pair(&doorway->v6_, &doorway->v6_port_)}) {
    Place place;
    if (fd->is_open() && LocalPlace(fd->get(), &place) == 0) {
      *port = place.port;
      doorway->WatchDoor(fd->get());
    }
  }
  return doorway;
}

Doorway::~Doorway() {
  loop_.Cancel(timer_);
  for (const base::UniqueFd* const fd : {&v4_, &v6_}) {
    if (fd->is_open()) {
      loop_.Forget(fd->get());
    }
  }
}

// A socket for both families reaches IPv4's door, unless it is bound to an IPv6 address already.
Address Doorway::DoorFor(int socket, int domain) const {
  Place local;
  const bool needs_v6 =
      domain == AF_INET6 &&
      (IntOption(socket, IPPROTO_IPV6, IPV6_V6ONLY) != 0 ||
       (LocalPlace(socket, &local) == 0 && !local.ip.is_v4() && !local.ip.IsUnspecified()));
  return needs_v6 ? MakeAddress(AF_INET6, Loopback(AF_INET6), v6_port_)
                  : MakeAddress(domain, Loopback(AF_INET), v4_port_);
}

Doorway::Result Doorway::Connect(int socket, int domain, const Place& destination,
                                 base::UniqueFd outcome) {
  if (!link_.is_open()) {
    return {ECONNREFUSED};
  }
  if (IntOption(socket, SOL_SOCKET, SO_BINDTOIFINDEX) != 0) {
    return {ENETUNREACH};  // bound to a device: the packets for loopback would leave by it
  }
  // With it the first packet would wait for the first byte, and a command that waits for the
  // outcome of its connect would never write one.
  if (IntOption(socket, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) != 0) {
    SetIntOption(socket, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0);
  }
  // Also where something is under way it is the door that is named: whatever another thread does to
  // the socket in between, it meets nobody else.
  const bool fresh = IsUnconnected(socket);
  const int error = ConnectNow(socket, DoorFor(socket, domain).bytes());
  if (!fresh || (error != 0 && error != EINPROGRESS)) {
    return {error};
  }
  Place source;
  if (const int unknown = LocalPlace(socket, &source); unknown != 0) {
    Disconnect(socket);
    return {unknown};
  }
  announced_.insert_or_assign(
      source, Announced{destination, std::move(outcome), std::chrono::steady_clock::now()});
  if (timer_ == 0) {
    timer_ = loop_.After(kForgottenAfter, [this] { ForgetOld(); });
  }
  return {error, true};
}

void Doorway::AcceptFrom(int listener) {
  sockaddr_storage storage{};
  for (;;) {
    socklen_t length = sizeof(storage);
    base::UniqueFd connection(accept4(listener, reinterpret_cast<sockaddr*>(&storage), &length,
                                      SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!connection.is_open()) {
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        RestFrom(listener);
      }
      return;
    }
    // Whoever drops it, and be it the kernel with a message that nobody has read, resets it.
    ResetOnClose(connection.get(), true);
    Place source;
    const auto found = PlaceOf(storage, &source) == 0 ? announced_.find(source) : announced_.end();
    if (found == announced_.end()) {
      continue;
    }
    Announced announced = std::move(found->second);
    announced_.erase(found);
    handover::Message message;
    message.kind = handover::Kind::kOutbound;
    message.ip = announced.destination.ip;
    message.port = announced.destination.port;
    std::vector<base::UniqueFd> descriptors;
    descriptors.push_back(std::move(connection));
    if (announced.outcome.is_open()) {
      descriptors.push_back(std::move(announced.outcome));
    }
    link_.Hand(message, std::move(descriptors));
  }
}

// Descriptors have run out: without a rest this would spin until there are some.
void Doorway::RestFrom(int listener) {
  loop_.Forget(listener);
  loop_.After(kRest, [this, listener] { WatchDoor(listener); });
}

void Doorway::WatchDoor(int listener) {
  loop_.Watch(listener, EPOLLIN, [this, listener] { AcceptFrom(listener); });
}

void Doorway::ForgetOld() {
  timer_ = 0;
  const auto limit = std::chrono::steady_clock::now() - kForgottenAfter;
  std::erase_if(announced_, [limit](const auto& entry) { return entry.second.since <= limit; });
  if (!announced_.empty()) {
    timer_ = loop_.After(kForgottenAfter, [this] { ForgetOld(); });
  }
}

}  // namespace postern::run
