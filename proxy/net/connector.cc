// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/connector.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "proxy/net/errno_status.h"
#include "proxy/net/socket_options.h"
#include "proxy/net/stream_adopt.h"
#include "proxy/net/timer.h"
#include "proxy/net/transparent.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;

// A unix listener with a full queue says EAGAIN and cannot be polled for room.
constexpr milliseconds kFirstRetry{1};
constexpr milliseconds kLongestRetry{50};

}  // namespace

// The socket is a Stream from the start: its own readiness tells of the end of the connect, and the
// same poll handle then serves the session.
struct Connector::Attempt final : Stream::Handler {
  Attempt(Loop& on_loop, const SocketAddress& to, Done when_done)
      : loop(on_loop), target(to), done(std::move(when_done)) {}
  virtual ~Attempt() = default;

  void Open(const ConnectOptions& options);
  void Connect();
  void OnReadable(Stream& /*stream*/) noexcept override {}
  void OnWritable(Stream& connecting) noexcept override;
  void Step();
  void Later(milliseconds delay);
  void FinishLater(absl::Status with);
  void Finish();
  std::unique_ptr<Stream> TakeAtOnce();
  bool ConnectedToItself() const;

  Loop& loop;
  SocketAddress target;
  Done done;
  std::optional<Timer> later;  // so that nothing calls back from inside the constructor
  std::unique_ptr<Stream> stream;
  milliseconds retry = kFirstRetry;
  absl::Status outcome;
  enum class AtOnce : uint8_t {
    kNo,     // the callback tells
    kAsked,  // a connect that is over at once waits for TakeAtOnce
    kThere,  // and does
  } at_once = AtOnce::kNo;
  enum class Next : uint8_t { kConnect, kFinish } next = Next::kConnect;
};

void Connector::Attempt::Open(const ConnectOptions& options) {
  const absl::StatusOr<int> fd = NewStreamSocket(target);
  if (!fd.ok()) {
    FinishLater(fd.status());
    return;
  }
  if (!target.is_unix()) {
    SetTcpOptions(*fd);
  }
  absl::StatusOr<std::unique_ptr<Stream>> made = StreamAdopter::AdoptPrepared(loop, *fd);
  if (!made.ok()) {
    FinishLater(made.status());
    return;
  }
  stream = *std::move(made);
  if (options.mark != 0 &&
      setsockopt(*fd, SOL_SOCKET, SO_MARK, &options.mark, sizeof(options.mark)) != 0) {
    FinishLater(ErrnoStatus(errno, "SO_MARK (needs CAP_NET_ADMIN)"));
    return;
  }
  if (const int priority = options.priority;
      priority != 0 && setsockopt(*fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority)) != 0) {
    FinishLater(ErrnoStatus(errno, "SO_PRIORITY"));
    return;
  }
  if (options.client != nullptr && !target.is_unix() &&
      options.client->is_v4() == target.ip().is_v4()) {
    if (absl::Status bound = BindAsClient(*fd, *options.client); !bound.ok()) {
      FinishLater(std::move(bound));
      return;
    }
  }
  at_once = options.near ? AtOnce::kAsked : AtOnce::kNo;
  Connect();
}

// Loopback has done its three steps by the time the first call says that they are under way; the
// second one says so, and spares a turn of the loop and the polling for it.
void Connector::Attempt::Connect() {
  sockaddr_storage storage{};
  const socklen_t length = target.ToSockaddr(&storage);
  const auto call = [&] {
    return connect(stream->fd(), reinterpret_cast<sockaddr*>(&storage), length) == 0;
  };
  const bool asked = at_once == AtOnce::kAsked;
  if (call() || (asked && errno == EINPROGRESS && (call() || errno == EISCONN))) {
    if (asked) {
      at_once = AtOnce::kThere;
    } else {
      FinishLater(absl::OkStatus());
    }
    return;
  }
  const int error = errno;
  at_once = AtOnce::kNo;
  if (error == EINPROGRESS || error == EALREADY || error == EINTR) {
    stream->SetHandler(this);
    stream->WantWrite(true);
  } else if (error == EAGAIN && target.is_unix()) {
    next = Next::kConnect;
    Later(retry);
    retry = std::min(retry * 2, kLongestRetry);
  } else {
    FinishLater(ErrnoStatus(error, "connect"));
  }
}

void Connector::Attempt::OnWritable(Stream& connecting) noexcept {
  connecting.WantWrite(false);
  connecting.SetHandler(nullptr);
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(connecting.fd(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
    error = errno;
  }
  if (error != 0) {
    outcome = ErrnoStatus(error, "connect");
  }
  Finish();
}

void Connector::Attempt::Step() {
  if (next == Next::kConnect) {
    Connect();
  } else {
    Finish();
  }
}

void Connector::Attempt::Later(milliseconds delay) {
  if (!later.has_value()) {
    later.emplace(loop, [this] { Step(); });
  }
  later->Start(delay);
}

void Connector::Attempt::FinishLater(absl::Status with) {
  outcome = std::move(with);
  next = Next::kFinish;
  Later(milliseconds(0));
}

// The callback may destroy the Connector, and this with it: nothing is touched after it.
void Connector::Attempt::Finish() {
  const Done call = std::move(done);
  if (outcome.ok() && ConnectedToItself()) {
    outcome = ErrnoStatus(ECONNREFUSED, "connect");
  }
  if (outcome.ok()) {
    call(std::move(stream));
    return;
  }
  stream.reset();
  const std::string message = base::StrCat(target.ToString(), ": ", outcome.message());
  call(Reworded(outcome,
                absl::IsResourceExhausted(outcome) ? absl::StatusCode::kResourceExhausted
                                                   : absl::StatusCode::kUnavailable,
                message));
}

std::unique_ptr<Stream> Connector::Attempt::TakeAtOnce() {
  if (std::exchange(at_once, AtOnce::kNo) != AtOnce::kThere) {
    return nullptr;
  }
  if (ConnectedToItself()) {
    FinishLater(ErrnoStatus(ECONNREFUSED, "connect"));
    return nullptr;
  }
  return std::move(stream);
}

// Without a listener on a local port of the ephemeral range, the kernel may pick that very port as
// the source, and the socket meets itself (simultaneous open): that is a refusal.
bool Connector::Attempt::ConnectedToItself() const {
  if (target.is_unix()) {
    return false;
  }
  const absl::StatusOr<SocketAddress> local = stream->LocalAddress();
  return local.ok() && *local == target;
}

Connector::Connector(Loop& loop, const SocketAddress& target, const ConnectOptions& options,
                     Done done)
    : attempt_(std::make_unique<Attempt>(loop, target, std::move(done))) {
  attempt_->Open(options);
}

Connector::~Connector() = default;

std::unique_ptr<Stream> Connector::TakeAtOnce() {
  return attempt_->TakeAtOnce();
}

}  // namespace postern::net
