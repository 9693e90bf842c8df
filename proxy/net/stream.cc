// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <utility>

#include "common/base/strings.h"
#include "proxy/net/errno_status.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"
#include "proxy/net/socket_options.h"
#include "proxy/net/stream_adopt.h"
#include "proxy/net/tcp_flight.h"

namespace postern::net {

struct Stream::Block final : HandleBlock {
  uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&poll); }
  static void OnPoll(uv_poll_t* poll, int status, int events) noexcept;
  void Deliver(int status, int events) noexcept;
  // Sees to it that what is wanted now is polled for. That reading is not wanted any more is left
  // until bytes come: most often it is wanted again before, and each change is two epoll_ctl(2). At
  // the end it is not left: that is told again and again. Inside Deliver nothing is done: what its
  // callbacks want one after the other is judged once, behind them.
  void UpdateMask() noexcept;
  // Makes the poll mask exactly what is wanted now.
  void SettleMask() noexcept;

  uv_poll_t poll{};
  Stream* stream = nullptr;
  Handler* handler = nullptr;
  int fd = -1;
  int wanted = 0;  // UV_READABLE | UV_WRITABLE, as the owner asked
  int mask = 0;    // what libuv polls for
  enum class Turn : uint8_t { kNone, kDelivering } turn = Turn::kNone;
  enum class ReadEnd : uint8_t { kOpen, kSeen } read_end = ReadEnd::kOpen;  // the peer's FIN
};

void Stream::Block::OnPoll(uv_poll_t* poll, int status, int events) noexcept {
  auto* block = static_cast<Block*>(static_cast<HandleBlock*>(poll->data));
  if (block->usable()) {
    block->Deliver(status, events);
  }
}

void Stream::Block::Deliver(int status, int events) noexcept {
  if (status != 0) {
    // A pending socket error (RST): libuv has stopped polling. Whoever asks next gets the error
    // from its own read or write.
    mask = 0;
    events = (wanted & UV_READABLE) != 0 ? UV_READABLE : UV_WRITABLE;
  }
  const bool unwanted = (events & ~(handler != nullptr ? wanted : 0)) != 0;
  // The owner may destroy the stream in each of these, which shows in usable().
  turn = Turn::kDelivering;
  if ((events & wanted & UV_READABLE) != 0 && handler != nullptr) {
    handler->OnReadable(*stream);
  }
  if (usable() && (events & wanted & UV_WRITABLE) != 0 && handler != nullptr) {
    handler->OnWritable(*stream);
  }
  turn = Turn::kNone;
  if (usable()) {
    unwanted ? SettleMask() : UpdateMask();
  }
}

void Stream::Block::UpdateMask() noexcept {
  const int next = handler != nullptr ? wanted : 0;
  if (turn == Turn::kNone && (mask != (next | UV_READABLE) || read_end == ReadEnd::kSeen)) {
    SettleMask();
  }
}

void Stream::Block::SettleMask() noexcept {
  const int next = (handler != nullptr && fd >= 0) ? wanted : 0;
  if (next == mask || !usable()) {
    return;
  }
  mask = next;
  if (next == 0) {
    uv_poll_stop(&poll);
  } else {
    uv_poll_start(&poll, next, &OnPoll);
  }
}

absl::StatusOr<std::unique_ptr<Stream>> Stream::Adopt(Loop& loop, int fd) {
  const absl::Status prepared = PrepareStreamSocket(fd);
  if (!prepared.ok()) {
    close(fd);
    return prepared;
  }
  return StreamAdopter::AdoptPrepared(loop, fd);
}

absl::StatusOr<std::unique_ptr<Stream>> StreamAdopter::AdoptPrepared(Loop& loop, int fd) {
  auto block = std::make_unique<Stream::Block>();
  const int error = uv_poll_init(&loop.impl()->loop, &block->poll, fd);
  if (error != 0) {
    close(fd);
    return ErrnoStatus(-error, "poll");
  }
  Stream::Block* held = block.release();
  held->poll.data = static_cast<HandleBlock*>(held);
  held->fd = fd;
  std::unique_ptr<Stream> stream(new Stream(held));
  held->stream = stream.get();
  return stream;
}

Stream::~Stream() {
  const int fd = block_->fd;
  block_->Release();  // libuv lets go of the descriptor before it is closed
  if (fd >= 0) {
    close(fd);
  }
}

void Stream::SetHandler(Handler* handler) {
  block_->handler = handler;
  block_->UpdateMask();
}

IoResult Stream::Read(base::MutableByteSpan buffer) {
  if (buffer.empty()) {
    return {IoOutcome::kWouldBlock, 0, 0};
  }
  while (true) {
    const ssize_t got = recv(block_->fd, buffer.data(), buffer.size(), 0);
    if (got > 0) {
      return {IoOutcome::kDone, static_cast<size_t>(got), 0};
    }
    if (got == 0) {
      block_->read_end = Block::ReadEnd::kSeen;
      return {IoOutcome::kEnd, 0, 0};
    }
    if (errno != EINTR) {
      return IoFailure(errno);
    }
  }
}

IoResult Stream::Write(base::ByteSpan bytes) {
  if (bytes.empty()) {
    return {IoOutcome::kWouldBlock, 0, 0};
  }
  while (true) {
    const ssize_t sent = send(block_->fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      return {IoOutcome::kDone, static_cast<size_t>(sent), 0};
    }
    if (errno != EINTR) {
      return IoFailure(errno);
    }
  }
}

void Stream::WantRead(bool want) {
  block_->wanted = want ? block_->wanted | UV_READABLE : block_->wanted & ~UV_READABLE;
  block_->UpdateMask();
}

void Stream::WantWrite(bool want) {
  block_->wanted = want ? block_->wanted | UV_WRITABLE : block_->wanted & ~UV_WRITABLE;
  block_->UpdateMask();
}

bool Stream::wants_read() const {
  return (block_->wanted & UV_READABLE) != 0;
}
bool Stream::wants_write() const {
  return (block_->wanted & UV_WRITABLE) != 0;
}

absl::Status Stream::ShutdownWrite() {
  if (shutdown(block_->fd, SHUT_WR) != 0) {
    return ErrnoStatus(errno, "shutdown");
  }
  return absl::OkStatus();
}

void Stream::Reset() {
  if (block_->fd < 0) {
    return;
  }
  // A unix socket has no RST: its peer sees the end, or ECONNRESET if it had sent what was not
  // read.
  const linger now{1, 0};
  setsockopt(block_->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  // libuv lets go of the descriptor before it is closed: its number may come back at once, and what
  // is done to the handle later would be done to the number's new owner.
  HandleBlock::CloseForLoop(block_->handle());
  block_->mask = 0;
  close(std::exchange(block_->fd, -1));
  block_->wanted = 0;
}

absl::StatusOr<SocketAddress> Stream::PeerAddress() const {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  if (getpeername(block_->fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) {
    return ErrnoStatus(errno, "address of the peer");
  }
  return SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&storage), length);
}

absl::StatusOr<SocketAddress> Stream::LocalAddress() const {
  return LocalAddressOf(block_->fd);
}

absl::StatusOr<std::chrono::milliseconds> Stream::Unacknowledged() const {
  if (!IsTcp(block_->fd)) {
    return std::chrono::milliseconds(0);  // a unix socket hands over at once
  }
  const absl::StatusOr<TcpFlight> flight = ReadTcpFlight(block_->fd);
  if (!flight.ok()) {
    return flight.status();
  }
  return UnacknowledgedFor(*flight);
}

int Stream::fd() const {
  return block_->fd;
}

}  // namespace postern::net
