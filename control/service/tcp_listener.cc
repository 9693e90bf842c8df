// SPDX-License-Identifier: Apache-2.0
#include "control/service/tcp_listener.h"

#include <arpa/inet.h>
#include <grpcpp/server_builder.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/strings.h"
#include "common/base/unique_fd.h"

namespace postern::service {
namespace {

using Acceptor = grpc::experimental::ExternalConnectionAcceptor;

constexpr int kBacklog = 1024;
constexpr size_t kReservedDescriptors = 128;
constexpr int kBackOffMs = 100;     // when descriptors run out
constexpr int kIdleSweepMs = 1000;  // so that the number of open connections is about right
constexpr absl::Duration kSweepAtMostEvery = absl::Milliseconds(250);
constexpr int kUserTimeoutMs = 30'000;  // data that nobody acknowledges ends the connection

union SocketAddress {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

std::optional<SocketAddress> ToSocketAddress(const ListenAddress& address) {
  SocketAddress socket_address{};
  if (inet_pton(AF_INET, address.host.c_str(), &socket_address.v4.sin_addr) == 1) {
    socket_address.v4.sin_family = AF_INET;
    socket_address.v4.sin_port = htons(address.port);
    return socket_address;
  }
  if (inet_pton(AF_INET6, address.host.c_str(), &socket_address.v6.sin6_addr) == 1) {
    socket_address.v6.sin6_family = AF_INET6;
    socket_address.v6.sin6_port = htons(address.port);
    return socket_address;
  }
  return std::nullopt;
}

base::IpAddress IpOf(const SocketAddress& address) {
  const void* bytes = address.any.sa_family == AF_INET
                          ? static_cast<const void*>(&address.v4.sin_addr)
                          : static_cast<const void*>(&address.v6.sin6_addr);
  const size_t size = address.any.sa_family == AF_INET ? 4 : 16;
  return *base::IpAddress::FromBytes({static_cast<const uint8_t*>(bytes), size});
}

bool IsSocket(int fd, ino_t inode) {
  struct stat facts {};
  return fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode) && facts.st_ino == inode;
}

// Both families for the IPv6 wildcard, as gRPC does it.
absl::StatusOr<base::UniqueFd> Bind(const SocketAddress& address) {
  base::UniqueFd fd(socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  const int off = 0;
  const socklen_t size =
      address.any.sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  if (!fd.is_open() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      (address.any.sa_family == AF_INET6 &&
       setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0) ||
      bind(fd.get(), &address.any, size) != 0 || listen(fd.get(), kBacklog) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  return fd;
}

// A reset leaves nothing behind here, neither memory nor a port in TIME_WAIT.
void Reset(int fd) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(fd);
}

ConnectionLimits WithinDescriptors(ConnectionLimits limits) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY) {
    const size_t most = files.rlim_cur > kReservedDescriptors
                            ? static_cast<size_t>(files.rlim_cur) - kReservedDescriptors
                            : 1;
    if (most < limits.total) {
      spdlog::warn("--max-connections: {} is cut to {}, which RLIMIT_NOFILE allows", limits.total,
                   most);
      limits.total = most;
    }
  }
  return limits;
}

}  // namespace

struct TcpListener::Impl {
  Impl(base::UniqueFd listening, ConnectionLimits limits, const base::Clock& with)
      : fd(std::move(listening)), clock(with), ledger(limits, &IsSocket) {}

  void AcceptAll();
  void Take(int accepted, const SocketAddress& peer);
  ConnectionLedger::Verdict Judge(int accepted, const SocketAddress& peer);
  void Sweep();

  const base::UniqueFd fd;
  const base::Clock& clock;
  base::UniqueFd stop;
  uint16_t port = 0;
  ListenerCounters counters;
  ConnectionLedger ledger;                              // the thread's alone
  absl::Duration swept_at = -absl::InfiniteDuration();  // SinceBoot: the wall clock may go back
  std::unique_ptr<Acceptor> acceptor;
  std::thread thread;
};

void TcpListener::Impl::Sweep() {
  ledger.Sweep();
  swept_at = clock.SinceBoot();
  counters.open.store(ledger.open(), std::memory_order_relaxed);
}

ConnectionLedger::Verdict TcpListener::Impl::Judge(int accepted, const SocketAddress& peer) {
  struct stat facts {};
  if (fstat(accepted, &facts) != 0) {
    return ConnectionLedger::Verdict::kTooMany;
  }
  const base::IpAddress source = IpOf(peer);
  ConnectionLedger::Verdict verdict = ledger.Admit(accepted, facts.st_ino, source);
  // A flood must not make us look at all connections for each of its own.
  if (verdict != ConnectionLedger::Verdict::kAdmitted &&
      clock.SinceBoot() - swept_at >= kSweepAtMostEvery) {
    Sweep();
    verdict = ledger.Admit(accepted, facts.st_ino, source);
  }
  return verdict;
}

void TcpListener::Impl::Take(int accepted, const SocketAddress& peer) {
  switch (Judge(accepted, peer)) {
    case ConnectionLedger::Verdict::kTooMany:
      counters.refused_total_limit.fetch_add(1, std::memory_order_relaxed);
      Reset(accepted);
      return;
    case ConnectionLedger::Verdict::kTooManyOfSource:
      counters.refused_source_limit.fetch_add(1, std::memory_order_relaxed);
      Reset(accepted);
      return;
    case ConnectionLedger::Verdict::kAdmitted:
      break;
  }
  counters.open.store(ledger.open(), std::memory_order_relaxed);
  const int on = 1;
  setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(accepted, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof(kUserTimeoutMs));
  Acceptor::NewConnectionParameters parameters;
  parameters.listener_fd = fd.get();
  parameters.fd = accepted;  // gRPC's from here on
  acceptor->HandleNewConnection(&parameters);
}

void TcpListener::Impl::AcceptAll() {
  std::array<pollfd, 2> waits = {{{stop.get(), POLLIN, 0}, {fd.get(), POLLIN, 0}}};
  while (true) {
    if (poll(waits.data(), waits.size(), kIdleSweepMs) < 0 && errno != EINTR) {
      spdlog::error("the listener stopped: {}", std::strerror(errno));
      return;
    }
    if (waits[0].revents != 0) {
      return;
    }
    if (clock.SinceBoot() - swept_at >= absl::Milliseconds(kIdleSweepMs)) {
      Sweep();
    }
    SocketAddress peer{};
    socklen_t size = sizeof(peer);
    const int accepted = accept4(fd.get(), &peer.any, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted >= 0) {
      Take(accepted, peer);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The connection stays in the backlog, so poll would come back at once.
      poll(waits.data(), 1, kBackOffMs);
    }
  }
}

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Listen(const ListenAddress& address,
                                                                 ConnectionLimits limits,
                                                                 const base::Clock& clock) {
  const std::optional<SocketAddress> wanted = ToSocketAddress(address);
  if (!wanted.has_value()) {
    return absl::UnavailableError(base::StrCat(address.host, " is no address"));
  }
  absl::StatusOr<base::UniqueFd> fd = Bind(*wanted);
  if (!fd.ok()) {
    return fd.status();
  }
  SocketAddress bound{};
  socklen_t size = sizeof(bound);
  auto impl = std::make_unique<Impl>(*std::move(fd), WithinDescriptors(limits), clock);
  impl->stop = base::UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!impl->stop.is_open() || getsockname(impl->fd.get(), &bound.any, &size) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  impl->port = ntohs(bound.any.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
  return std::unique_ptr<TcpListener>(new TcpListener(std::move(impl)));
}

TcpListener::TcpListener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TcpListener::~TcpListener() {
  Stop();
}

void TcpListener::Serve(std::unique_ptr<Acceptor> acceptor) {
  impl_->acceptor = std::move(acceptor);
  impl_->thread = std::thread([impl = impl_.get()] { impl->AcceptAll(); });
}

void TcpListener::Stop() {
  eventfd_write(impl_->stop.get(), 1);
  if (impl_->thread.joinable()) {
    impl_->thread.join();
  }
}

uint16_t TcpListener::port() const {
  return impl_->port;
}

const ListenerCounters& TcpListener::counters() const {
  return impl_->counters;
}

}  // namespace postern::service
