// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/issuer/swarm.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/time/clock.h"

namespace postern::bench {
namespace {

constexpr int kEventsAtOnce = 512;
constexpr int kTurnMs = 20;  // how often `done` is asked when nothing happens
constexpr std::array<unsigned char, 3> kAlpn = {2, 'h', '2'};

x509::SslCtxPtr MakeContext() {
  x509::SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  // The issuer is what is measured, and it was started by us: its certificate is not verified.
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_protos(context.get(), kAlpn.data(), kAlpn.size());
  return context;
}

bool Present(SSL* ssl, const Credential& credential) {
  if (credential.chain.empty()) {
    return true;
  }
  bool good = SSL_use_certificate(ssl, credential.chain.front().get()) == 1 &&
              SSL_use_PrivateKey(ssl, credential.key) == 1;
  for (size_t i = 1; good && i < credential.chain.size(); ++i) {
    good = SSL_add1_chain_cert(ssl, credential.chain[i].get()) == 1;
  }
  return good;
}

int Connect(uint16_t port, uint32_t source) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
  sockaddr_in from{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  from.sin_addr.s_addr = htonl((127U << 24U) | source);
  sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {}, .sin_zero = {}};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof(from)) != 0 ||
      (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 &&
       errno != EINPROGRESS)) {
    std::fprintf(stderr, "cannot connect: %s\n", std::strerror(errno));
    close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

LightConnection::LightConnection(Swarm& swarm, ConnectionUser& user, size_t index)
    : swarm_(swarm),
      user_(user),
      index_(index),
      reader_({.on_message =
                   [this](std::string_view message) {
                     if (!closed_) {
                       user_.OnMessage(*this, message);
                     }
                   },
               .on_call_end =
                   [this](std::string_view trailers) {
                     if (!closed_) {
                       user_.OnCallEnd(*this, trailers);
                     }
                   },
               .on_failure = [this](std::string_view reason) { Fail(reason); },
               .answer = [this](const std::string& bytes) { Send(bytes); }}) {}

void LightConnection::StartCall(std::string_view method, std::string_view message, bool last) {
  stream_ = stream_ == 0 ? 1 : stream_ + 2;
  Send(RequestHeaders(stream_, method) + MessageFrame(stream_, message, last));
}

void LightConnection::SendMessage(std::string_view message) {
  Send(MessageFrame(stream_, message, false));
}

void LightConnection::Close() {
  if (!closed_) {
    closed_ = true;
    swarm_.has_closed_ = true;
    if (open_) {
      SSL_shutdown(ssl_.get());
    }
    close(fd_);
  }
}

void LightConnection::Fail(std::string_view reason) {
  if (!closed_) {
    Close();
    user_.OnFailure(*this, reason);
  }
}

void LightConnection::Send(std::string_view bytes) {
  out_ += bytes;
  Flush();
}

void LightConnection::Flush() {
  while (!closed_ && !out_.empty()) {
    size_t written = 0;
    ERR_clear_error();
    const int result = SSL_write_ex(ssl_.get(), out_.data(), out_.size(), &written);
    if (result != 1) {
      if (SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_WRITE) {
        Fail("the connection broke");
      }
      break;
    }
    out_.erase(0, written);
  }
  if (out_.empty()) {
    out_ = std::string();
  }
  if (!closed_ && wants_write_ != !out_.empty()) {
    wants_write_ = !out_.empty();
    epoll_event event{.events = EPOLLIN | (wants_write_ ? EPOLLOUT : 0U), .data = {.ptr = this}};
    epoll_ctl(swarm_.epoll_, EPOLL_CTL_MOD, fd_, &event);
  }
}

void LightConnection::Handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) {
    open_ = true;
    Send(Http2Preface());
    if (!closed_) {
      user_.OnOpen(*this);
    }
    return;
  }
  const int error = SSL_get_error(ssl_.get(), result);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
    Fail("the TLS handshake failed");
  }
}

void LightConnection::ReadAll() {
  static thread_local std::array<char, 64 << 10> buffer;
  while (!closed_) {
    size_t size = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_.get(), buffer.data(), buffer.size(), &size);
    if (result == 1) {
      reader_.Feed({buffer.data(), size});
      continue;
    }
    const int error = SSL_get_error(ssl_.get(), result);
    if (error != SSL_ERROR_WANT_READ) {
      Fail("the issuer closed the connection");
    }
    return;
  }
}

void LightConnection::OnReady(uint32_t events) {
  if (!closed_ && !open_) {
    Handshake();
  }
  if (!closed_ && open_ && (events & EPOLLOUT) != 0) {
    Flush();
  }
  if (!closed_ && open_) {
    ReadAll();
  }
}

Swarm::Swarm(uint16_t port)
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), port_(port), context_(MakeContext()) {}

Swarm::~Swarm() {
  CloseAll();
  close(epoll_);
}

LightConnection* Swarm::Open(const Credential& credential, uint32_t source, ConnectionUser& user,
                             size_t index) {
  std::unique_ptr<LightConnection> connection(new LightConnection(*this, user, index));
  connection->fd_ = Connect(port_, source);
  connection->ssl_.reset(SSL_new(context_.get()));
  SSL* const ssl = connection->ssl_.get();
  if (connection->fd_ < 0 || ssl == nullptr || SSL_set_fd(ssl, connection->fd_) != 1 ||
      !Present(ssl, credential)) {
    close(connection->fd_);
    return nullptr;
  }
  SSL_set_connect_state(ssl);
  connection->wants_write_ = true;  // the first event is that it is connected
  epoll_event event{.events = EPOLLIN | EPOLLOUT, .data = {.ptr = connection.get()}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, connection->fd_, &event);
  connections_.push_back(std::move(connection));
  return connections_.back().get();
}

bool Swarm::RunUntil(const std::function<bool()>& done, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  std::array<epoll_event, kEventsAtOnce> events{};
  while (!done()) {
    if (absl::Now() >= deadline) {
      return false;
    }
    const int count = epoll_wait(epoll_, events.data(), kEventsAtOnce, kTurnMs);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      static_cast<LightConnection*>(event.data.ptr)->OnReady(event.events);
    }
    Collect();
  }
  return true;
}

void Swarm::Collect() {
  if (has_closed_) {
    has_closed_ = false;
    std::erase_if(connections_, [](const auto& connection) { return connection->closed_; });
  }
}

void Swarm::CloseAll() {
  for (const auto& connection : connections_) {
    connection->Close();
  }
  Collect();
}

}  // namespace postern::bench
