// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/control_socket.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "common/base/strings.h"
#include "common/base/unique_fd.h"
#include "common/base/unix_socket.h"

namespace postern::admin {
namespace {

using http::ErrorReply;
using http::Reply;

constexpr size_t kMaxRequestBytes = 8192;
constexpr int kBacklog = 16;
constexpr timeval kTimeout = {2, 0};  // for one read or write: one thread serves everybody

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

void WriteReply(int fd, const Reply& reply) {
  const std::string text = http::Serialize(reply);
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

Reply ForgetSeen(const Verbs& verbs, std::string_view query) {
  constexpr std::string_view kDestination = "destination=";
  if (!query.starts_with(kDestination)) {
    return ErrorReply(400, "say which: /seen/forget?destination=192.0.2.7:5432, or all");
  }
  const absl::Status done = verbs.forget_seen(query.substr(kDestination.size()));
  if (done.ok()) {
    return Done("forgotten");
  }
  const int status = absl::IsInvalidArgument(done) ? 400 : absl::IsNotFound(done) ? 404 : 503;
  return ErrorReply(status, base::Message(done));
}

Reply Answer(const Pages& pages, const Verbs& verbs, std::string_view head) {
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const auto [method, rest] = SplitAt(line, ' ');
  const auto [target, version] = SplitAt(rest, ' ');
  if (!version.starts_with("HTTP/1.")) {
    return ErrorReply(400, "not an HTTP/1.1 request");
  }
  const auto [path, query] = SplitAt(target, '?');
  const bool is_verb = path == "/drain" || path == "/shutdown" || path == "/logging" ||
                       path == "/renew" || path == "/seen/forget";
  if (method == "GET" && !is_verb) {
    return ReadPage(pages, path).value_or(ErrorReply(404, "no such page; see /"));
  }
  if (method != "POST" || !is_verb) {
    return ErrorReply(
        405, "GET reads a page; POST does /drain, /shutdown, /logging, /renew or /seen/forget");
  }
  if (path == "/logging") {
    return SetLogLevel(verbs, query);
  }
  if (path == "/renew") {
    const absl::Status asked = verbs.renew();
    return asked.ok() ? Done("renewing") : ErrorReply(409, base::Message(asked));
  }
  if (path == "/seen/forget") {
    return ForgetSeen(verbs, query);
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
  std::unique_ptr<base::UnixServerSocket> socket;
  base::UniqueFd stop;
  const Pages* pages = nullptr;
  const Verbs* verbs = nullptr;
  std::thread thread;

  void Serve() const;
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

void ControlSocket::Impl::Serve() const {
  while (true) {
    const base::UniqueFd accepted(socket->AcceptUnless(stop.get()));
    if (accepted.get() < 0) {
      return;
    }
    ServeOne(accepted.get());
  }
}

absl::StatusOr<std::unique_ptr<ControlSocket>> ControlSocket::Start(const std::string& path,
                                                                    const Pages& pages,
                                                                    const Verbs& verbs) {
  absl::StatusOr<std::unique_ptr<base::UnixServerSocket>> socket =
      base::UnixServerSocket::Listen(path, 0600, kBacklog);
  if (!socket.ok()) {
    return socket.status();
  }
  auto impl = std::make_unique<Impl>();
  impl->socket = *std::move(socket);
  impl->stop = base::UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (impl->stop.get() < 0) {
    return absl::UnavailableError(base::StrCat("cannot make an eventfd: ", strerror(errno)));
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
}

}  // namespace postern::admin
