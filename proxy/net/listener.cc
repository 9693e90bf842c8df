// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "proxy/net/errno_status.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"
#include "proxy/net/socket_options.h"
#include "proxy/net/stream_adopt.h"
#include "proxy/net/timer.h"
#include "proxy/net/transparent.h"
#include "proxy/net/unix_socket_file.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstBackoff{5};
constexpr milliseconds kLongestBackoff{1000};

enum class AcceptFault : uint8_t {
  kNothingWaits,  // the queue is empty
  kOneLost,       // one connection died before its turn; the next may be well
  kBackOff,       // a limit was reached, or nothing that is known
};

AcceptFault Judge(int error) {
  switch (error) {
    case EAGAIN:
      return AcceptFault::kNothingWaits;
    case EINTR:
    case ECONNABORTED:
    case EPERM:  // a firewall rule
    // Linux hands pending network errors of the new socket to accept; see accept(2).
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT:
      return AcceptFault::kOneLost;
    default:
      return AcceptFault::kBackOff;
  }
}

// Options that a TCP listener needs before bind.
absl::Status PrepareTcpListener(int fd, const SocketAddress& address,
                                const ListenOptions& options) {
  const auto set = [fd](int level, int option) {
    const int on = 1;
    return setsockopt(fd, level, option, &on, sizeof(on)) == 0;
  };
  if (!set(SOL_SOCKET, SO_REUSEADDR) || (options.reuse_port && !set(SOL_SOCKET, SO_REUSEPORT)) ||
      (!address.ip().is_v4() && !set(IPPROTO_IPV6, IPV6_V6ONLY))) {
    return ErrnoStatus(errno, "listener options");
  }
  if (options.transparent) {
    if (absl::Status transparent = SetTransparent(fd, address.ip().is_v4()); !transparent.ok()) {
      return transparent;
    }
  }
  SetTcpOptions(fd);  // what it accepts inherits them
  return absl::OkStatus();
}

absl::Status BindTcp(int fd, const SocketAddress& address, const ListenOptions& options) {
  const absl::Status prepared = PrepareTcpListener(fd, address, options);
  if (!prepared.ok()) {
    return prepared;
  }
  sockaddr_storage storage{};
  const socklen_t length = address.ToSockaddr(&storage);
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) {
    return ErrnoStatus(errno, "bind");
  }
  return absl::OkStatus();
}

constexpr int kRefusedForOne = 16;

// The peer sees RST, and the kernel keeps nothing of the connection.
void CloseAbruptly(int fd) {
  const linger abrupt = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof(abrupt));
  close(fd);
}

// Names the address, and keeps to the errors that Listen promises.
absl::Status Explain(const absl::Status& status, const SocketAddress& address) {
  const std::string message =
      base::StrCat("cannot listen on ", address.ToString(), ": ", status.message());
  return absl::IsPermissionDenied(status) ? absl::PermissionDeniedError(message)
                                          : absl::UnavailableError(message);
}

}  // namespace

struct Listener::Block final : HandleBlock {
  enum class State : uint8_t { kAccepting, kBackingOff, kPaused };

  explicit Block(Loop& on_loop) : loop(on_loop) {
    retry.emplace(on_loop, [this] { OnRetry(); });
  }
  ~Block() override { CloseFd(); }
  uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&poll); }
  static void OnPoll(uv_poll_t* poll, int /*status*/, int /*events*/) noexcept {
    auto* block = static_cast<Block*>(static_cast<HandleBlock*>(poll->data));
    if (block->usable()) {
      block->AcceptSome();
    }
  }

  void AcceptSome();
  // False: it was refused.
  bool HandOver(int accepted, const sockaddr_storage& storage, socklen_t length);
  void BackOff();
  void OnRetry();
  void Enter(State next);
  void CloseFd() {
    if (fd >= 0) {
      close(std::exchange(fd, -1));
    }
  }

  Loop& loop;
  uv_poll_t poll{};
  std::optional<Timer> retry;  // gone with the listener, before the block
  int fd = -1;
  OnAccept on_accept;
  ListenOptions options;
  SocketAddress local;
  UnixSocketFile file;
  milliseconds backoff = kFirstBackoff;
  uint64_t errors = 0;
  State state = State::kPaused;
};

void Listener::Block::Enter(State next) {
  if (!usable()) {
    return;
  }
  state = next;
  if (next != State::kBackingOff) {
    retry->Stop();
  }
  if (next == State::kAccepting) {
    uv_poll_start(&poll, UV_READABLE, &OnPoll);
  } else {
    uv_poll_stop(&poll);
  }
}

// The callback may pause or destroy the listener, which shows in `state` and usable().
void Listener::Block::AcceptSome() {
  int left = options.accepts_per_turn * kRefusedForOne;
  while (left > 0 && usable() && state != State::kPaused) {
    sockaddr_storage storage{};
    socklen_t length = sizeof(storage);
    const int accepted =
        accept4(fd, reinterpret_cast<sockaddr*>(&storage), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0) {
      backoff = kFirstBackoff;
      left -= HandOver(accepted, storage, length) ? kRefusedForOne : 1;
      continue;
    }
    const AcceptFault fault = Judge(errno);
    if (fault == AcceptFault::kNothingWaits) {
      return;
    }
    if (fault == AcceptFault::kBackOff) {
      BackOff();
      return;
    }
    left -= kRefusedForOne;
  }
}

bool Listener::Block::HandOver(int accepted, const sockaddr_storage& storage, socklen_t length) {
  const absl::StatusOr<SocketAddress> peer =
      SocketAddress::FromSockaddr(reinterpret_cast<const sockaddr*>(&storage), length);
  if (peer.ok() && options.admit != nullptr && !options.admit(*peer)) {
    CloseAbruptly(accepted);
    return false;
  }
  absl::StatusOr<std::unique_ptr<Stream>> stream = StreamAdopter::AdoptPrepared(loop, accepted);
  if (!peer.ok() || !stream.ok()) {
    ++errors;
    return true;
  }
  on_accept(*std::move(stream), *peer);
  return true;
}

void Listener::Block::BackOff() {
  ++errors;
  Enter(State::kBackingOff);
  retry->Start(backoff);
  backoff = std::min(backoff * 2, kLongestBackoff);
}

void Listener::Block::OnRetry() {
  if (usable() && state == State::kBackingOff) {
    // Accepts first and polls after: a queue that still cannot be served costs one call, no
    // wake-up.
    state = State::kAccepting;
    AcceptSome();
    if (usable() && state == State::kAccepting) {
      Enter(State::kAccepting);
    }
  }
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(Loop& loop, int fd,
                                                         const ListenOptions& options,
                                                         OnAccept on_accept) {
  auto block = std::make_unique<Block>(loop);
  block->fd = fd;
  const absl::StatusOr<SocketAddress> local = LocalAddressOf(fd);
  if (!local.ok()) {
    return local.status();
  }
  const int error = uv_poll_init(&loop.impl()->loop, &block->poll, fd);
  if (error != 0) {
    return ErrnoStatus(-error, "poll");
  }
  block->poll.data = static_cast<HandleBlock*>(block.get());
  block->local = *local;
  block->options = options;
  block->on_accept = std::move(on_accept);
  return std::unique_ptr<Listener>(new Listener(block.release()));
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Listen(Loop& loop, const SocketAddress& address,
                                                           const ListenOptions& options,
                                                           OnAccept on_accept) {
  const absl::StatusOr<int> fd = NewStreamSocket(address);
  if (!fd.ok()) {
    return Explain(fd.status(), address);
  }
  absl::StatusOr<std::unique_ptr<Listener>> listener =
      Open(loop, *fd, options, std::move(on_accept));
  if (!listener.ok()) {
    return Explain(listener.status(), address);
  }
  Block& block = *(*listener)->block_;
  const absl::Status bound = address.is_unix()
                                 ? block.file.Bind(*fd, address.path(), options.unix_mode)
                                 : BindTcp(*fd, address, options);
  if (!bound.ok()) {
    return Explain(bound, address);
  }
  if (listen(*fd, options.backlog) != 0) {
    return Explain(ErrnoStatus(errno, "listen"), address);
  }
  const absl::StatusOr<SocketAddress> local = LocalAddressOf(*fd);
  if (!local.ok()) {
    return Explain(local.status(), address);
  }
  block.local = *local;
  block.Enter(Block::State::kAccepting);
  return listener;
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Adopt(Loop& loop, int fd,
                                                          const ListenOptions& options,
                                                          OnAccept on_accept) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    return absl::UnavailableError(base::StrCat("listening socket: ", ErrnoText(errno)));
  }
  int listening = 0;
  socklen_t length = sizeof(listening);
  if (getsockopt(copy, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening == 0) {
    close(copy);
    return absl::UnavailableError(
        base::StrCat("file descriptor ", fd, " is no listening stream socket"));
  }
  if (IsTcp(copy)) {
    SetTcpOptions(copy);
  }
  absl::StatusOr<std::unique_ptr<Listener>> listener =
      Open(loop, copy, options, std::move(on_accept));
  if (listener.ok()) {
    (*listener)->block_->Enter(Block::State::kAccepting);
  }
  return listener;
}

Listener::~Listener() {
  block_->retry.reset();
  block_->file.Remove();
  // libuv lets go of the descriptor before it is closed.
  const int fd = std::exchange(block_->fd, -1);
  block_->Release();
  if (fd >= 0) {
    close(fd);
  }
}

void Listener::Pause() {
  block_->Enter(Block::State::kPaused);
}

void Listener::Resume() {
  if (block_->state == Block::State::kPaused) {
    block_->Enter(Block::State::kAccepting);
  }
}

const SocketAddress& Listener::LocalAddress() const {
  return block_->local;
}
int Listener::fd() const {
  return block_->fd;
}
uint64_t Listener::accept_errors() const {
  return block_->errors;
}

}  // namespace postern::net
