// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/sockets.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

namespace postern::testing {
namespace {

constexpr std::chrono::milliseconds kPatience = std::chrono::seconds(20);

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::abort();
}

sockaddr_storage IpAddress(std::string_view ip, uint16_t port, socklen_t* length) {
  sockaddr_storage storage{};
  const std::string text(ip);
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    *length = sizeof(*v4);
  } else if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    *length = sizeof(*v6);
  } else {
    Die("not an IP address");
  }
  return storage;
}

sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

// The event loop's library may interrupt the thread that made a loop (task work of io_uring), so no
// call of a test may take EINTR for an end.
template <typename Call>
auto Uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

// connect(2), which goes on by itself after an interruption.
bool ConnectFully(int fd, const sockaddr* address, socklen_t length) {
  if (connect(fd, address, length) == 0) {
    return true;
  }
  if (errno != EINTR) {
    return false;
  }
  pollfd ready{fd, POLLOUT, 0};
  int error = 0;
  socklen_t size = sizeof(error);
  return Uninterrupted([&] { return poll(&ready, 1, -1); }) == 1 &&
         getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

}  // namespace

std::string_view Name(ReadEnd end) {
  switch (end) {
    case ReadEnd::kEnd:
      return "end";
    case ReadEnd::kReset:
      return "reset";
    case ReadEnd::kTimeout:
      return "timeout";
    case ReadEnd::kError:
      break;
  }
  return "error";
}

Socket::Socket(int fd) : fd_(fd) {
  SetTimeout(kPatience);
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Socket::Socket(Socket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), last_end_(other.last_end_), was_reset_(other.was_reset_) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  Close();
  fd_ = std::exchange(other.fd_, -1);
  last_end_ = other.last_end_;
  was_reset_ = other.was_reset_;
  return *this;
}

Socket::~Socket() {
  Close();
}

Socket Socket::TryConnect(std::string_view ip, uint16_t port) {
  socklen_t length = 0;
  const sockaddr_storage address = IpAddress(ip, port, &length);
  Socket made(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!ConnectFully(made.fd_, reinterpret_cast<const sockaddr*>(&address), length)) {
    made.Close();
  }
  return made;
}

Socket Socket::Connect(std::string_view ip, uint16_t port, int receive_buffer) {
  socklen_t length = 0;
  const sockaddr_storage address = IpAddress(ip, port, &length);
  Socket made(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (receive_buffer > 0) {
    setsockopt(made.fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  if (!ConnectFully(made.fd_, reinterpret_cast<const sockaddr*>(&address), length)) {
    Die("connect");
  }
  return made;
}

Socket Socket::ConnectUnix(const std::string& path) {
  const sockaddr_un address = UnixAddress(path);
  Socket made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!ConnectFully(made.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address))) {
    Die("connect");
  }
  return made;
}

int Socket::Release() {
  return std::exchange(fd_, -1);
}

bool Socket::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n =
        Uninterrupted([&] { return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); });
    if (n < 0) {
      was_reset_ = was_reset_ || errno == ECONNRESET || errno == EPIPE;
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

std::string Socket::Read(size_t most) {
  std::string bytes(most, '\0');
  const ssize_t n = Uninterrupted([&] { return recv(fd_, bytes.data(), bytes.size(), 0); });
  if (n <= 0) {
    last_end_ = n == 0 && was_reset_                      ? ReadEnd::kReset
                : n == 0                                  ? ReadEnd::kEnd
                : errno == ECONNRESET || errno == EPIPE   ? ReadEnd::kReset
                : errno == EAGAIN || errno == EWOULDBLOCK ? ReadEnd::kTimeout
                                                          : ReadEnd::kError;
    return "";
  }
  bytes.resize(static_cast<size_t>(n));
  return bytes;
}

std::string Socket::ReadExactly(size_t bytes) {
  std::string all;
  while (all.size() < bytes) {
    const std::string some = Read(std::min<size_t>(bytes - all.size(), 1U << 20U));
    if (some.empty()) {
      break;
    }
    all += some;
  }
  return all;
}

std::string Socket::ReadToEnd() {
  std::string all;
  while (true) {
    const std::string some = Read(1U << 16U);
    if (some.empty()) {
      return all;
    }
    all += some;
  }
}

ReadEnd Socket::DrainToEnd() {
  ReadToEnd();
  return last_end_;
}

size_t Socket::SendUntilFull(size_t most, std::chrono::milliseconds patience) {
  const std::string block(64U << 10U, 'x');
  size_t total = 0;
  while (total < most) {
    const ssize_t n = send(fd_, block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      total += static_cast<size_t>(n);
      continue;
    }
    pollfd ready{fd_, POLLOUT, 0};
    if (errno != EAGAIN ||
        Uninterrupted([&] { return poll(&ready, 1, static_cast<int>(patience.count())); }) <= 0) {
      break;
    }
  }
  return total;
}

void Socket::ShutdownWrite() {
  shutdown(fd_, SHUT_WR);
}

void Socket::Close() {
  if (fd_ >= 0) {
    close(std::exchange(fd_, -1));
  }
}

void Socket::Reset() {
  const linger at_once{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  Close();
}

void Socket::SetSendBuffer(int bytes) {
  setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

void Socket::SetTimeout(std::chrono::milliseconds time) {
  const timeval limit{time.count() / 1000, (time.count() % 1000) * 1000};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

Server::Server(Serve serve, int receive_buffer) : serve_(std::move(serve)) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  socklen_t length = 0;
  sockaddr_storage address = IpAddress("127.0.0.1", 0, &length);
  if (bind(fd_, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(fd_, 4096) != 0 ||
      getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    Die("listen");
  }
  port_ = ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  acceptor_ = std::thread([this] { Run(); });
}

Server::Server(const std::string& unix_path, Serve serve) : serve_(std::move(serve)) {
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = UnixAddress(unix_path);
  if (bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd_, 4096) != 0) {
    Die("listen");
  }
  acceptor_ = std::thread([this] { Run(); });
}

Server::~Server() {
  StopAccepting();
  close(fd_);
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void Server::StopAccepting() {
  shutdown(fd_, SHUT_RDWR);  // wakes accept
  if (acceptor_.joinable()) {
    acceptor_.join();
  }
}

void Server::Run() {
  while (true) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == ECONNABORTED || errno == EINTR) {
        continue;
      }
      if (errno == EMFILE) {  // a test took the descriptors away for a moment
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      return;
    }
    ++accepted_;
    const std::lock_guard<std::mutex> lock(mutex_);
    threads_.emplace_back([this, fd] { serve_(Socket(fd)); });
  }
}

void Echo(Socket socket) {
  while (true) {
    const std::string bytes = socket.Read(1U << 16U);
    if (bytes.empty() || !socket.Send(bytes)) {
      return;
    }
  }
}

bool Await(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return condition();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::string Pattern(size_t bytes, uint64_t seed) {
  std::string text(bytes, '\0');
  uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
  for (size_t i = 0; i < bytes; i += sizeof(state)) {
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    std::memcpy(text.data() + i, &state, std::min(sizeof(state), bytes - i));
  }
  return text;
}

size_t OpenDescriptors() {
  DIR* const folder = opendir("/proc/self/fd");
  size_t count = 0;
  while (readdir(folder) != nullptr) {
    ++count;
  }
  closedir(folder);
  return count - 3;  // ".", ".." and the folder itself
}

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace postern::testing
