// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/listeners.h"

#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "common/base/enum_index.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "proxy/net/resolver.h"
#include "proxy/session/dialer.h"

namespace postern::session {
namespace {

base::IpAddress Ip(std::string_view text) {
  return base::IpAddress::Parse(text).value();
}

// Whether this host speaks IPv6 at all: without it the IPv6 listeners of interception are left out.
bool HasIpv6() {
  sockaddr_storage storage{};
  const socklen_t length = net::SocketAddress(Ip("::1"), 0).ToSockaddr(&storage);
  const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0;
  close(fd);
  return bound;
}

absl::StatusOr<net::SocketAddress> ListenAddress(const config::TunnelSpec& tunnel) {
  const std::optional<net::SocketAddress> fixed = FixedAddress(tunnel.listen);
  if (fixed.has_value()) {
    return *fixed;
  }
  const absl::StatusOr<std::vector<net::SocketAddress>> found =
      net::ResolveNow(tunnel.listen.host, tunnel.listen.port);
  if (!found.ok()) {
    return absl::Status(found.status().code(),
                        base::ToAbsl(base::StrCat("--tunnel ", tunnel.name,
                                                  ": listen: ", found.status().message())));
  }
  return found->front();
}

std::unique_ptr<ListenerSpec> InterceptionSpec(const config::ProxyConfig& config,
                                               base::Direction direction, std::string_view ip) {
  auto spec = std::make_unique<ListenerSpec>();
  const bool inbound = direction == base::Direction::kInbound;
  spec->name = inbound ? "inbound" : "outbound";
  spec->direction = direction;
  spec->address = net::SocketAddress(Ip(ip), inbound ? config.inbound_port : config.outbound_port);
  // Outbound connections are redirected in both modes: there is no tproxy for what starts here.
  spec->transparent = inbound && config.intercept == config::InterceptMode::kTproxy;
  return spec;
}

}  // namespace

std::shared_ptr<ListenerShare> NewListenerShare() {
  return std::make_shared<ListenerShare>();
}

bool ListenerShare::Find(size_t position, Entry* entry) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(position);
  if (found == entries_.end()) {
    return false;
  }
  *entry = found->second;
  return true;
}

void ListenerShare::Put(size_t position, const Entry& entry) {
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_[position] = entry;
}

void ListenerShare::Clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_.clear();
}

// The addresses are literal: the configuration takes no others.
void AddOutboundProxies(const config::ProxyConfig& config,
                        std::vector<std::unique_ptr<ListenerSpec>>& specs) {
  for (const config::AddressSpec& address : config.outbound_proxies) {
    auto spec = std::make_unique<ListenerSpec>();
    spec->name = base::StrCat("outbound-proxy:", address.ToString());
    spec->direction = base::Direction::kOutbound;
    spec->address = FixedAddress(address).value_or(net::SocketAddress(Ip("127.0.0.1"), 0));
    spec->takes_requests = true;
    specs.push_back(std::move(spec));
  }
}

absl::StatusOr<std::vector<std::unique_ptr<ListenerSpec>>> ListenerSpecs(
    const config::ProxyConfig& config) {
  std::vector<std::unique_ptr<ListenerSpec>> specs;
  for (const config::TunnelSpec& tunnel : config.tunnels) {
    absl::StatusOr<net::SocketAddress> address = ListenAddress(tunnel);
    if (!address.ok()) {
      return address.status();
    }
    auto spec = std::make_unique<ListenerSpec>();
    spec->name = tunnel.name;
    spec->direction = tunnel.direction;
    spec->address = *std::move(address);
    spec->tunnel = &tunnel;
    spec->target = FixedAddress(tunnel.target);
    specs.push_back(std::move(spec));
  }
  AddOutboundProxies(config, specs);
  if (config.intercept == config::InterceptMode::kNone) {
    return specs;
  }
  const bool ipv6 = HasIpv6();
  if (!ipv6) {
    spdlog::warn("this host has no IPv6: interception listens on IPv4 alone");
  }
  // Inbound on every address, as the rules leave the local address as it is; outbound for this
  // host.
  specs.push_back(InterceptionSpec(config, base::Direction::kInbound, "0.0.0.0"));
  if (ipv6) {
    specs.push_back(InterceptionSpec(config, base::Direction::kInbound, "::"));
  }
  specs.push_back(InterceptionSpec(config, base::Direction::kOutbound, "127.0.0.1"));
  if (ipv6) {
    specs.push_back(InterceptionSpec(config, base::Direction::kOutbound, "::1"));
  }
  return specs;
}

absl::StatusOr<std::unique_ptr<Listeners>> Listeners::Open(net::Loop& loop,
                                                           const config::ProxyConfig& config,
                                                           std::shared_ptr<ListenerShare> share,
                                                           Admit admit, OnAccept on_accept) {
  absl::StatusOr<std::vector<std::unique_ptr<ListenerSpec>>> specs = ListenerSpecs(config);
  if (!specs.ok()) {
    return specs.status();
  }
  std::unique_ptr<Listeners> listeners(
      new Listeners(std::move(share), std::move(admit), std::move(on_accept)));
  size_t position = 0;
  for (std::unique_ptr<ListenerSpec>& spec : *specs) {
    const std::string flag = spec->tunnel != nullptr ? base::StrCat("--tunnel ", spec->name)
                             : spec->takes_requests  ? "--outbound-proxy"
                                                     : base::StrCat("--", spec->name, "-port");
    const absl::Status opened = listeners->OpenOne(loop, position++, std::move(spec));
    if (!opened.ok()) {
      return absl::Status(opened.code(), base::ToAbsl(base::StrCat(flag, ": ", opened.message())));
    }
  }
  return listeners;
}

Listeners::~Listeners() {
  if (filled_share_) {
    share_->Clear();
  }
}

absl::Status Listeners::OpenOne(net::Loop& loop, size_t position,
                                std::unique_ptr<ListenerSpec> spec) {
  const ListenerSpec* const via = spec.get();
  net::ListenOptions options;
  options.transparent = spec->transparent;
  options.admit = [this, via](const net::SocketAddress& peer) { return admit_(*via, peer); };
  const auto accept = [this, via](std::unique_ptr<net::Stream> stream,
                                  const net::SocketAddress& peer) {
    on_accept_(*via, std::move(stream), peer);
  };
  ListenerShare::Entry first;
  const bool shared = share_->Find(position, &first);
  absl::StatusOr<std::unique_ptr<net::Listener>> listener =
      shared && first.address.is_unix()
          ? net::Listener::Adopt(loop, first.fd, options, accept)
          : net::Listener::Listen(loop, shared ? first.address : spec->address, options, accept);
  if (!listener.ok()) {
    return listener.status();
  }
  const net::SocketAddress address = (*listener)->LocalAddress();
  if (!shared) {
    share_->Put(position, {(*listener)->fd(), address});
    filled_share_ = true;
  }
  bound_.push_back({spec->name, address});
  open_.push_back({std::move(spec), *std::move(listener), 0});
  return absl::OkStatus();
}

absl::Status Listeners::Take(net::Loop& loop, int fd, const net::SocketAddress& target) {
  if (closed_[base::At(base::Direction::kInbound)]) {
    return absl::FailedPreconditionError(
        "the proxy drains, and accepts nothing from outside any more");
  }
  auto spec = std::make_unique<ListenerSpec>();
  spec->name = "inbound";
  spec->handed = true;
  spec->target = target;
  const ListenerSpec* const via = spec.get();
  net::ListenOptions options;
  options.admit = [this, via](const net::SocketAddress& peer) { return admit_(*via, peer); };
  absl::StatusOr<std::unique_ptr<net::Listener>> listener = net::Listener::Adopt(
      loop, fd, options,
      [this, via](std::unique_ptr<net::Stream> stream, const net::SocketAddress& peer) {
        on_accept_(*via, std::move(stream), peer);
      });
  if (!listener.ok()) {
    return listener.status();
  }
  spec->address = (*listener)->LocalAddress();
  // The kernel would share connections out between this one and a former one at its address (of
  // IPv6 alone, say), whose application has gone.
  for (Opened& former : open_) {
    if (former.spec->handed && former.spec->address == spec->address) {
      former.listener.reset();
    }
  }
  open_.push_back({std::move(spec), *std::move(listener), 0});
  return absl::OkStatus();
}

void Listeners::Pause(base::Direction direction) {
  for (Opened& opened : open_) {
    if (opened.listener != nullptr && opened.spec->direction == direction) {
      opened.listener->Pause();
    }
  }
}

void Listeners::Resume(base::Direction direction) {
  for (Opened& opened : open_) {
    if (opened.listener != nullptr && opened.spec->direction == direction) {
      opened.listener->Resume();
    }
  }
}

void Listeners::Close(base::Direction direction) {
  closed_[base::At(direction)] = true;
  for (Opened& opened : open_) {
    if (opened.spec->direction == direction) {
      opened.listener.reset();
    }
  }
}

uint64_t Listeners::TakeAcceptErrors() {
  uint64_t fresh = 0;
  for (Opened& opened : open_) {
    if (opened.listener != nullptr) {
      const uint64_t total = opened.listener->accept_errors();
      fresh += total - std::exchange(opened.errors_told, total);
    }
  }
  return fresh;
}

}  // namespace postern::session
