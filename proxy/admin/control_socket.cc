// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/control_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "common/base/strings.h"

namespace postern::admin {
namespace {

using http::ErrorReply;
using http::Reply;

constexpr size_t kMaxRequestBytes = 8192;
constexpr timeval kTimeout = {2, 0};  // for one read or write: one thread serves everybody

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status SystemError(std::string_view what, const std::string& path) {
  return absl::UnavailableError(base::StrCat(what, " ", path, ": ", strerror(errno)));
}

bool IsListenedOn(const sockaddr_un& address) {
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

absl::StatusOr<Fd> Listen(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        base::StrCat("--admin-socket: a unix socket's path has at most ",
                     sizeof(address.sun_path) - 1, " bytes: ", path));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode)) {
      return absl::FailedPreconditionError(base::StrCat(path, " exists and is no socket"));
    }
    if (IsListenedOn(address)) {
      return absl::FailedPreconditionError(base::StrCat(path, " is in use by another process"));
    }
    unlink(path.c_str());
  }
  Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // The mode on the descriptor is what bind gives the file: no moment with wider rights.
  if (listener.get() < 0 || fchmod(listener.get(), 0600) != 0 ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      chmod(path.c_str(), 0600) != 0 || listen(listener.get(), 16) != 0) {
    return SystemError("cannot listen on unix socket", path);
  }
  return listener;
}

bool MayAdminister(int fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && length == sizeof(peer) &&
         (peer.uid == 0 || peer.uid == geteuid());
}

// The request's head, up to the blank line; empty when it is too long, late or cut short.
std::string ReadHead(int fd) {
  std::string head;
  std::array<char, 1024> chunk{};
  while (head.size() < kMaxRequestBytes) {
    const ssize_t got = recv(fd, chunk.data(), chunk.size(), 0);
    if (got <= 0) {
      return {};
    }
    head.append(chunk.data(), static_cast<size_t>(got));
    if (head.find("\r\n\r\n") != std::string::npos) {
      return head;
    }
  }
  return {};
}

std::string_view StatusText(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    default:
      return "Service Unavailable";
  }
}

void WriteReply(int fd, const Reply& reply) {
  const std::string text = base::StrCat("HTTP/1.1 ", reply.status, " ", StatusText(reply.status),
                                        "\r\nContent-Type: ", reply.content_type,
                                        "\r\nContent-Length: ", reply.body.size(),
                                        "\r\nConnection: close\r\n\r\n", reply.body);
  size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t n = send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) {
      return;  // the operator's client went away; there is nobody to tell
    }
    sent += static_cast<size_t>(n);
  }
}

// What stands before and behind the first `separator`; nothing behind where there is none.
std::pair<std::string_view, std::string_view> SplitAt(std::string_view text, char separator) {
  const size_t at = text.find(separator);
  return at == std::string_view::npos ? std::pair(text, std::string_view())
                                      : std::pair(text.substr(0, at), text.substr(at + 1));
}

Reply Done(std::string_view what) {
  return {200, "application/json", base::StrCat("{\"result\":\"", what, "\"}\n")};
}

Reply SetLogLevel(const Verbs& verbs, std::string_view query) {
  constexpr std::string_view kLevel = "level=";
  if (!query.starts_with(kLevel)) {
    return ErrorReply(400, "say which: /logging?level=debug");
  }
  const absl::Status set = verbs.set_log_level(query.substr(kLevel.size()));
  return set.ok() ? Done("logging") : ErrorReply(400, base::Message(set));
}

Reply Answer(const Pages& pages, const Verbs& verbs, std::string_view head) {
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const auto [method, rest] = SplitAt(line, ' ');
  const auto [target, version] = SplitAt(rest, ' ');
  if (!version.starts_with("HTTP/1.")) {
    return ErrorReply(400, "not an HTTP/1.1 request");
  }
  const auto [path, query] = SplitAt(target, '?');
  const bool is_verb = path == "/drain" || path == "/shutdown" || path == "/logging";
  if (method == "GET" && !is_verb) {
    return ReadPage(pages, path).value_or(ErrorReply(404, "no such page; see /"));
  }
  if (method != "POST" || !is_verb) {
    return ErrorReply(405, "GET reads a page; POST does /drain, /shutdown or /logging");
  }
  if (path == "/logging") {
    return SetLogLevel(verbs, query);
  }
  if (path == "/drain") {
    verbs.drain();
    return Done("draining");
  }
  verbs.shutdown();
  return Done("shutting down");
}

}  // namespace

struct ControlSocket::Impl {
  std::string path;
  struct stat file {};  // to tell at the end whether the file is still ours
  Fd listener;
  Fd stop;
  const Pages* pages = nullptr;
  const Verbs* verbs = nullptr;
  std::thread thread;

  void Serve();
  void ServeOne(int fd) const;
};

void ControlSocket::Impl::ServeOne(int fd) const {
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof(kTimeout));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof(kTimeout));
  if (!MayAdminister(fd)) {
    WriteReply(fd, ErrorReply(403, "only root and the proxy's own user may use this socket"));
    return;
  }
  const std::string head = ReadHead(fd);
  WriteReply(fd, head.empty() ? ErrorReply(400, "no complete HTTP request within the limits")
                              : Answer(*pages, *verbs, head));
}

void ControlSocket::Impl::Serve() {
  std::array<pollfd, 2> waits = {{{listener.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}}};
  while (true) {
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) {
      return;
    }
    if (waits[1].revents != 0) {
      return;
    }
    const Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (accepted.get() >= 0) {
      ServeOne(accepted.get());
    } else if (errno == EMFILE || errno == ENFILE) {
      // The connection stays in the backlog and poll would say so at once: wait for a descriptor.
      poll(&waits[1], 1, 100);
    }
  }
}

absl::StatusOr<std::unique_ptr<ControlSocket>> ControlSocket::Start(const std::string& path,
                                                                    const Pages& pages,
                                                                    const Verbs& verbs) {
  absl::StatusOr<Fd> listener = Listen(path);
  if (!listener.ok()) {
    return listener.status();
  }
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->listener = *std::move(listener);
  impl->stop = Fd(eventfd(0, EFD_CLOEXEC));
  if (impl->stop.get() < 0 || lstat(path.c_str(), &impl->file) != 0) {
    return SystemError("cannot watch unix socket", path);
  }
  impl->pages = &pages;
  impl->verbs = &verbs;
  impl->thread = std::thread([running = impl.get()] { running->Serve(); });
  return std::unique_ptr<ControlSocket>(new ControlSocket(std::move(impl)));
}

ControlSocket::ControlSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ControlSocket::~ControlSocket() {
  eventfd_write(impl_->stop.get(), 1);
  impl_->thread.join();
  struct stat now {};
  if (lstat(impl_->path.c_str(), &now) == 0 && now.st_ino == impl_->file.st_ino &&
      now.st_dev == impl_->file.st_dev) {
    unlink(impl_->path.c_str());
  }
}

}  // namespace postern::admin
