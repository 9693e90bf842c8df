// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_server.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <list>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "common/base/tcp_socket.h"
#include "common/base/unique_fd.h"
#include "common/http/connection.h"
#include "common/http/page_pool.h"
#include "common/http/request_head.h"

namespace postern::http {
namespace {

using Steady = std::chrono::steady_clock;
using Phase = Connection::Phase;
constexpr size_t kThreads = 4;
constexpr int kBacklog = 256;
constexpr int kMostAcceptsAtOnce = 16;  // then those who are there have their turn
constexpr auto kBackOff = std::chrono::milliseconds(100);  // when descriptors run out
constexpr auto kGrace = std::chrono::milliseconds(100);    // at a step, before one has to make room
constexpr int kMostWaitMs = 10'000;

// A browser that was tricked into resolving an attacker's name to 127.0.0.1 still sends that name.
bool NamesThisMachine(std::string_view host_header, std::string_view own_host) {
  const auto named = base::HostPort::Parse(host_header, {.names = true, .no_port = true});
  if (!named.ok()) {
    return false;
  }
  const std::string lower = absl::AsciiStrToLower(base::ToAbsl(named->host));
  return lower == "localhost" || lower == "127.0.0.1" || lower == "::1" || lower == own_host;
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
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Service Unavailable";
  }
}

short EventsOf(Phase phase) {
  return static_cast<short>(phase == Phase::kReply ? POLLOUT : POLLIN);
}

}  // namespace

Reply Ok(std::string_view content_type, std::string body) {
  return {200, std::string(content_type), std::move(body)};
}

Reply ErrorReply(int status, std::string_view text) {
  // Printable leaves no quote, but its \xNN is no escape of JSON.
  const std::string safe = absl::StrReplaceAll(base::Printable(text), {{"\\", "\\\\"}});
  return {status, std::string(kJson), base::StrCat("{\"error\":\"", safe, "\"}\n")};
}

std::string Serialize(const Reply& reply, bool head_only) {
  return base::StrCat("HTTP/1.1 ", reply.status, " ", StatusText(reply.status),
                      "\r\nContent-Type: ", reply.content_type,
                      "\r\nContent-Length: ", reply.body.size(), "\r\nConnection: close\r\n\r\n",
                      head_only ? std::string_view() : std::string_view(reply.body));
}

struct HttpServer::Impl {
  void Serve();
  std::vector<pollfd> Waits(Steady::time_point now);
  int TimeToNextDeadline(Steady::time_point now) const;
  void Turn(const std::vector<pollfd>& waits);
  void Continue(Connection& connection, Steady::time_point now);
  // Nullopt: the pool was asked for the page.
  std::optional<Reply> Judge(Connection& connection, Steady::time_point now) const;
  void HandBack(Steady::time_point now);
  void AcceptSome(Steady::time_point now);
  std::list<Connection>::iterator Slowest(Steady::time_point now);
  bool HasRoom(Steady::time_point now);

  std::string host;
  HostCheck check = HostCheck::kNone;
  base::UniqueFd listening;
  base::UniqueFd stop;
  uint16_t port = 0;
  std::unique_ptr<PagePool> pool;
  std::thread thread;

  // The thread's alone.
  std::list<Connection> connections;
  uint64_t next_id = 0;
  Steady::time_point accept_from = Steady::time_point::min();
};

std::optional<Reply> HttpServer::Impl::Judge(Connection& connection, Steady::time_point now) const {
  if (connection.head().empty()) {
    return ErrorReply(431, "the request's head is too long");
  }
  const absl::StatusOr<RequestHead> head = ParseRequestHead(connection.head());
  if (!head.ok()) {
    return ErrorReply(400, base::Message(head.status()));
  }
  connection.SetHeadOnly(head->method == "HEAD");
  if (head->method != "GET" && head->method != "HEAD") {
    return ErrorReply(405, "this port only reads");
  }
  if (head->has_body) {
    return ErrorReply(413, "this port takes no bodies");
  }
  if (check == HostCheck::kThisMachine && !NamesThisMachine(head->host, host)) {
    return ErrorReply(403, "the Host header does not name this machine");
  }
  pool->Ask(connection.id(), head->path);
  connection.AwaitPage(now);
  return std::nullopt;
}

void HttpServer::Impl::Continue(Connection& connection, Steady::time_point now) {
  if (connection.phase() == Phase::kRequest && connection.Receive()) {
    if (const std::optional<Reply> reply = Judge(connection, now); reply.has_value()) {
      connection.Answer(*reply, now);
    }
  } else if (connection.phase() == Phase::kReply) {
    connection.Send(now);
  } else if (connection.phase() == Phase::kEnding) {
    connection.AwaitEnd();
  }
}

void HttpServer::Impl::HandBack(Steady::time_point now) {
  for (const PagePool::Answer& answer : pool->Take()) {
    const auto asked =
        std::find_if(connections.begin(), connections.end(),
                     [&](const Connection& c) { return c.id() == answer.connection; });
    if (asked != connections.end()) {
      asked->Answer(answer.reply, now);
    }
  }
}

// Who has to go when another one comes: the one that has been at its step for the longest, unless
// it has only begun. Pages are waited for. end(): nobody.
std::list<Connection>::iterator HttpServer::Impl::Slowest(Steady::time_point now) {
  auto slowest = connections.end();
  for (auto one = connections.begin(); one != connections.end(); ++one) {
    if (one->phase() != Phase::kPage && one->since() + kGrace <= now &&
        (slowest == connections.end() || one->since() < slowest->since())) {
      slowest = one;
    }
  }
  return slowest;
}

bool HttpServer::Impl::HasRoom(Steady::time_point now) {
  return connections.size() < kMaxConnections || Slowest(now) != connections.end();
}

void HttpServer::Impl::AcceptSome(Steady::time_point now) {
  for (int i = 0; i < kMostAcceptsAtOnce && HasRoom(now); ++i) {
    base::UniqueFd fd(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.is_open()) {
      if (connections.size() >= kMaxConnections) {
        connections.erase(Slowest(now));
      }
      connections.emplace_back(next_id++, std::move(fd), now);
      continue;
    }
    if (errno == ECONNABORTED || errno == EINTR) {
      continue;
    }
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) {
      return;
    }
    if (const auto slowest = Slowest(now); slowest != connections.end()) {
      connections.erase(slowest);  // no more descriptors than these: as when all places are taken
      continue;
    }
    // The connection stays in the backlog, so poll would come back at once.
    accept_from = now + kBackOff;
    return;
  }
}

// At the `now` of Waits: who is left out there is waited for here.
int HttpServer::Impl::TimeToNextDeadline(Steady::time_point now) const {
  Steady::time_point next = Steady::time_point::max();
  const bool full = connections.size() >= kMaxConnections;
  for (const Connection& connection : connections) {
    next = std::min(next, connection.until());
    if (full && connection.phase() != Phase::kPage && connection.since() + kGrace > now) {
      next = std::min(next, connection.since() + kGrace);  // from then on there is room
    }
  }
  if (accept_from > now) {
    next = std::min(next, accept_from);
  }
  if (next == Steady::time_point::max()) {
    return -1;
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, kMostWaitMs));
}

std::vector<pollfd> HttpServer::Impl::Waits(Steady::time_point now) {
  std::vector<pollfd> waits;
  waits.push_back({stop.get(), POLLIN, 0});
  const bool accepts = now >= accept_from && HasRoom(now);
  waits.push_back({accepts ? listening.get() : -1, POLLIN, 0});
  waits.push_back({pool->ready_fd(), POLLIN, 0});
  for (const Connection& connection : connections) {
    // While its page is made, nobody asks whether the client has gone.
    waits.push_back({connection.phase() == Phase::kPage ? -1 : connection.fd(),
                     EventsOf(connection.phase()), 0});
  }
  return waits;
}

void HttpServer::Impl::Turn(const std::vector<pollfd>& waits) {
  const Steady::time_point now = Steady::now();
  size_t at = 3;
  for (auto one = connections.begin(); one != connections.end(); ++at) {
    if (waits[at].revents != 0) {
      Continue(*one, now);
    }
    one = one->until() <= now ? connections.erase(one) : std::next(one);
  }
  if (waits[2].revents != 0) {
    HandBack(now);
  }
  if (waits[1].revents != 0) {
    AcceptSome(now);
  }
}

void HttpServer::Impl::Serve() {
  while (true) {
    const Steady::time_point now = Steady::now();
    std::vector<pollfd> waits = Waits(now);
    if (poll(waits.data(), waits.size(), TimeToNextDeadline(now)) < 0) {
      if (errno == EINTR) {
        continue;
      }
      spdlog::error("the HTTP port {} stopped: {}", port, std::strerror(errno));
      return;
    }
    if (waits[0].revents != 0) {
      return;
    }
    Turn(waits);
  }
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host,
                                                              uint16_t port, HostCheck check,
                                                              ReadPage read_page) {
  // One socket for both families; a machine without IPv6 gets the IPv4 one.
  absl::StatusOr<base::UniqueFd> fd =
      base::ListenTcp(host == "0.0.0.0" ? "::" : host, port, kBacklog);
  if (!fd.ok() && host == "0.0.0.0") {
    fd = base::ListenTcp(host, port, kBacklog);
  }
  if (!fd.ok()) {
    return absl::UnavailableError(
        base::StrCat(base::Message(fd.status()), ": is another program using it?"));
  }
  const absl::StatusOr<uint16_t> bound = base::BoundPort(fd->get());
  absl::StatusOr<std::unique_ptr<PagePool>> pool = PagePool::Start(kThreads, std::move(read_page));
  if (!bound.ok() || !pool.ok()) {
    return bound.ok() ? pool.status() : bound.status();
  }
  auto impl = std::make_unique<Impl>();
  impl->host = host;
  impl->check = check;
  impl->listening = *std::move(fd);
  impl->port = *bound;
  impl->pool = *std::move(pool);
  impl->stop = base::UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!impl->stop.is_open()) {
    return absl::UnavailableError(base::StrCat("cannot make an eventfd: ", std::strerror(errno)));
  }
  impl->thread = std::thread([serving = impl.get()] { serving->Serve(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  eventfd_write(impl_->stop.get(), 1);
  impl_->thread.join();
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

}  // namespace postern::http
