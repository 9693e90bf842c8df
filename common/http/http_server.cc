// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"

namespace postern::http {
namespace {

constexpr size_t kThreads = 4;
constexpr time_t kTimeoutSeconds = 5;
constexpr auto kStartLimit = std::chrono::seconds(5);

// A browser that was tricked into resolving an attacker's name to 127.0.0.1 still sends that name.
bool NamesThisMachine(std::string_view host_header, std::string_view own_host) {
  const auto named = base::HostPort::Parse(host_header, {.names = true, .no_port = true});
  if (!named.ok()) {
    return false;
  }
  const std::string lower = absl::AsciiStrToLower(base::ToAbsl(named->host));
  return lower == "localhost" || lower == "127.0.0.1" || lower == "::1" || lower == own_host;
}

// The library's default sets SO_REUSEPORT, with which a second proxy would silently share the port.
void UseReuseAddrOnly(socket_t fd) {
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
}

void Send(const Reply& reply, httplib::Response& response) {
  response.status = reply.status;
  response.set_content(reply.body, reply.content_type.c_str());
}

std::unique_ptr<httplib::Server> MakeServer(const std::string& host, HostCheck check,
                                            const ReadPage& read_page) {
  auto server = std::make_unique<httplib::Server>();
  server->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server->set_socket_options(UseReuseAddrOnly);
  server->set_read_timeout(kTimeoutSeconds);
  server->set_write_timeout(kTimeoutSeconds);
  server->set_keep_alive_timeout(1);  // an idle scraper must not hold one of the few threads
  server->set_payload_max_length(0);
  server->Get(
      ".*", [host, check, read_page](const httplib::Request& request, httplib::Response& response) {
        if (check == HostCheck::kThisMachine &&
            !NamesThisMachine(request.get_header_value("Host"), host)) {
          Send(ErrorReply(403, "the Host header does not name this machine"), response);
          return;
        }
        Send(read_page(request.path).value_or(ErrorReply(404, "no such page")), response);
      });
  server->Post(".*", [](const httplib::Request&, httplib::Response& response) {
    Send(ErrorReply(405, "this port only reads"), response);
  });
  return server;
}

// Binds; 0 when the address is not to be had.
uint16_t Bind(httplib::Server& server, const std::string& host, uint16_t port) {
  if (port == 0) {
    const int bound = server.bind_to_any_port(host);
    return bound > 0 ? static_cast<uint16_t>(bound) : uint16_t{0};
  }
  return server.bind_to_port(host, port) ? port : uint16_t{0};
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

struct HttpServer::Impl {
  std::unique_ptr<httplib::Server> server;
  std::thread thread;
  uint16_t port = 0;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host,
                                                              uint16_t port, HostCheck check,
                                                              ReadPage read_page) {
  auto impl = std::make_unique<Impl>();
  if (host == "0.0.0.0") {
    // One socket for both families; a machine without IPv6 gets the IPv4 one below.
    impl->server = MakeServer(host, check, read_page);
    impl->port = Bind(*impl->server, "::", port);
  }
  if (impl->port == 0) {
    impl->server = MakeServer(host, check, read_page);
    impl->port = Bind(*impl->server, host, port);
  }
  if (impl->port == 0) {
    return absl::UnavailableError(
        base::StrCat("cannot listen on ", host, " port ", port, ": is another program using it?"));
  }
  impl->thread = std::thread([server = impl->server.get()] { server->listen_after_bind(); });
  // stop() does nothing before the loop runs, and the library of Debian 12 has no call to wait.
  const auto limit = std::chrono::steady_clock::now() + kStartLimit;
  while (!impl->server->is_running() && std::chrono::steady_clock::now() < limit) {
    std::this_thread::yield();
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  impl_->server->stop();
  impl_->thread.join();
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

}  // namespace postern::http
