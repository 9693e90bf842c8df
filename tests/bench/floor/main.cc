// SPDX-License-Identifier: Apache-2.0
// What no proxy in user space can do without: for each readiness one recv, AES-128-GCM over what
// came in records of 16 KiB, and one send. There is no handshake, no framing, no policy and no
// limit; what goes out is the bytes as they came, so that a pair of these carries what a pair of
// proxies does.
//
//   postern-bench-floor LISTEN-PORT DIAL-PORT     both on 127.0.0.1, until a signal
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

constexpr size_t kRecord = 16U << 10U;
constexpr size_t kRead = 64U << 10U;
constexpr int kEvents = 64;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Sealing costs what opening does: both sides of a pair seal.
class Cipher {
 public:
  Cipher() : context_(EVP_CIPHER_CTX_new()), sealed_(kRead) {
    const std::array<uint8_t, 16> key{};
    if (context_ == nullptr ||
        EVP_EncryptInit_ex(context_, EVP_aes_128_gcm(), nullptr, key.data(), nonce_.data()) != 1) {
      Die("AES-128-GCM");
    }
  }
  Cipher(const Cipher&) = delete;
  Cipher& operator=(const Cipher&) = delete;
  ~Cipher() { EVP_CIPHER_CTX_free(context_); }

  void Work(const uint8_t* bytes, size_t size) {
    for (size_t at = 0; at < size; at += kRecord) {
      const int part = static_cast<int>(std::min(kRecord, size - at));
      std::array<uint8_t, 16> tag{};
      int written = 0;
      ++nonce_[11];
      if (EVP_EncryptInit_ex(context_, nullptr, nullptr, nullptr, nonce_.data()) != 1 ||
          EVP_EncryptUpdate(context_, sealed_.data(), &written, bytes + at, part) != 1 ||
          EVP_EncryptFinal_ex(context_, sealed_.data(), &written) != 1 ||
          EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, 16, tag.data()) != 1) {
        Die("AES-128-GCM");
      }
    }
  }

 private:
  EVP_CIPHER_CTX* context_;
  std::array<uint8_t, 12> nonce_{};
  std::vector<uint8_t> sealed_;
};

// One end of a connection; each owns the other's fate.
struct End {
  int fd = -1;
  End* other = nullptr;
  bool ended = false;            // its peer has sent FIN
  std::vector<uint8_t> waiting;  // what its socket did not take yet
};

class Relay {
 public:
  Relay(uint16_t listen_port, uint16_t dial_port) : dial_(Loopback(dial_port)), buffer_(kRead) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    const sockaddr_in address = Loopback(listen_port);
    if (epoll_ < 0 || listener_ < 0 ||
        bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        listen(listener_, 1024) != 0) {
      Die("listen");
    }
    epoll_event event{};
    event.events = EPOLLIN;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event);
  }

  [[noreturn]] void Run() {
    std::array<epoll_event, kEvents> events{};
    while (true) {
      const int count = epoll_wait(epoll_, events.data(), kEvents, -1);
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events.at(static_cast<size_t>(i));
        auto* end = static_cast<End*>(event.data.ptr);
        if (end == nullptr) {
          Accept();
        } else if (end->fd >= 0) {
          Serve(*end, event.events);
        }
      }
      closed_.clear();
    }
  }

 private:
  void Accept() {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      return;
    }
    const int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // On loopback this ends at once.
    if (out < 0 || connect(out, reinterpret_cast<const sockaddr*>(&dial_), sizeof(dial_)) != 0) {
      close(fd);
      close(out);
      return;
    }
    auto* downstream = new End;
    auto* upstream = new End;
    for (End* end : {downstream, upstream}) {
      const int on = 1;
      end->fd = end == downstream ? fd : out;
      end->other = end == downstream ? upstream : downstream;
      setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      Poll(*end, EPOLL_CTL_ADD);
    }
  }

  void Poll(End& end, int how) {
    epoll_event event{};
    event.data.ptr = &end;
    event.events = (end.ended || !end.other->waiting.empty() ? 0U : EPOLLIN) |
                   (end.waiting.empty() ? 0U : EPOLLOUT);
    epoll_ctl(epoll_, how, end.fd, &event);
  }

  void Serve(End& end, uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !end.waiting.empty()) {
      const ssize_t sent = send(end.fd, end.waiting.data(), end.waiting.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        end.waiting.erase(end.waiting.begin(), end.waiting.begin() + sent);
      }
      if (sent < 0 && errno != EAGAIN) {
        Close(end);
        return;
      }
      if (end.waiting.empty()) {
        if (end.other->ended) {
          shutdown(end.fd, SHUT_WR);
        }
        Poll(end, EPOLL_CTL_MOD);
        Poll(*end.other, EPOLL_CTL_MOD);
      }
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && end.other->waiting.empty()) {
      Carry(end);
    }
  }

  void Carry(End& from) {
    End& to = *from.other;
    // splice and a socket without user space could not seal.
    const ssize_t got = recv(from.fd, buffer_.data(), buffer_.size(), 0);
    if (got < 0) {
      if (errno != EAGAIN) {
        Close(from);
      }
      return;
    }
    if (got == 0) {
      from.ended = true;
      shutdown(to.fd, SHUT_WR);
      if (to.ended) {
        Close(from);
      } else {
        Poll(from, EPOLL_CTL_MOD);
      }
      return;
    }
    const auto size = static_cast<size_t>(got);
    cipher_.Work(buffer_.data(), size);
    const ssize_t sent = send(to.fd, buffer_.data(), size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      Close(from);
      return;
    }
    const auto taken = static_cast<ptrdiff_t>(std::max<ssize_t>(sent, 0));
    if (static_cast<size_t>(taken) < size) {
      to.waiting.assign(buffer_.begin() + taken, buffer_.begin() + got);
      Poll(from, EPOLL_CTL_MOD);
      Poll(to, EPOLL_CTL_MOD);
    }
  }

  // Both ends; the memory stays until the batch of events that may name it is done with.
  void Close(End& end) {
    for (End* one : {&end, end.other}) {
      close(one->fd);
      one->fd = -1;
      closed_.emplace_back(one);
    }
  }

  const sockaddr_in dial_;
  std::vector<uint8_t> buffer_;
  Cipher cipher_;
  std::vector<std::unique_ptr<End>> closed_;
  int epoll_ = -1;
  int listener_ = -1;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("postern-bench-floor LISTEN-PORT DIAL-PORT\n", stderr);
    return 2;
  }
  Relay(static_cast<uint16_t>(std::atoi(argv[1])), static_cast<uint16_t>(std::atoi(argv[2]))).Run();
}
