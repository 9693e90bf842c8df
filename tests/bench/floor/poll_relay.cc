// SPDX-License-Identifier: Apache-2.0
// The relay over readiness: recv and send of our own, told when by epoll itself or by libuv.
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <memory>

#include "floor.h"

namespace postern::bench {
namespace {

constexpr int kEvents = 64;
constexpr unsigned kReadable = 1;
constexpr unsigned kWritable = 2;

// One end of a connection.
struct End {
  uv_poll_t poll{};  // of the loop that is libuv's
  int fd = -1;
  End* other = nullptr;
  bool ended = false;            // its peer has sent FIN
  std::vector<uint8_t> waiting;  // what its socket did not take yet
};

class Relay {
 public:
  Relay(uint16_t listen_port, uint16_t dial_port) : dial_(Loopback(dial_port)), buffer_(kRead) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    const sockaddr_in address = Loopback(listen_port);
    if (listener_ < 0 ||
        bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        listen(listener_, 1024) != 0) {
      Die("listen");
    }
  }
  virtual ~Relay() = default;
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

 protected:
  // What this end is to be polled for is `wanted` from now on.
  virtual void Begin(End& end) = 0;
  virtual void Poll(End& end, unsigned wanted) = 0;
  // Its memory goes once no event can name it any more.
  virtual void Let(End& end) = 0;

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
      Begin(*end);
      Update(*end);
    }
  }

  void Serve(End& end, unsigned events) {
    if ((events & kWritable) != 0 && !end.waiting.empty() && !Flush(end)) {
      return;
    }
    if ((events & kReadable) != 0 && end.other->waiting.empty()) {
      Carry(end);
    }
  }

  const int& listener() const { return listener_; }

 private:
  void Update(End& end) {
    Poll(end, (end.ended || !end.other->waiting.empty() ? 0U : kReadable) |
                  (end.waiting.empty() ? 0U : kWritable));
  }

  // False when the connection is over.
  bool Flush(End& end) {
    const ssize_t sent = send(end.fd, end.waiting.data(), end.waiting.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      Close(end);
      return false;
    }
    end.waiting.erase(end.waiting.begin(), end.waiting.begin() + std::max<ssize_t>(sent, 0));
    if (end.waiting.empty()) {
      if (end.other->ended) {
        shutdown(end.fd, SHUT_WR);
      }
      Update(end);
      Update(*end.other);
    }
    return true;
  }

  void Carry(End& from) {
    End& to = *from.other;
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
      to.ended ? Close(from) : Update(from);
      return;
    }
    const auto size = static_cast<size_t>(got);
    cipher_.Work(buffer_.data(), size);
    const ssize_t sent = send(to.fd, buffer_.data(), size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      Close(from);
      return;
    }
    const ssize_t taken = std::max<ssize_t>(sent, 0);
    if (taken < got) {
      to.waiting.assign(buffer_.begin() + taken, buffer_.begin() + got);
      Update(from);
      Update(to);
    }
  }

  void Close(End& end) {
    End& other = *end.other;
    for (End* one : {&end, &other}) {
      const int fd = std::exchange(one->fd, -1);
      Let(*one);
      close(fd);
    }
  }

  const sockaddr_in dial_;
  std::vector<uint8_t> buffer_;
  Cipher cipher_;
  int listener_ = -1;
};

class EpollRelay final : public Relay {
 public:
  EpollRelay(uint16_t listen_port, uint16_t dial_port) : Relay(listen_port, dial_port) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, listener(), &event) != 0) {
      Die("epoll");
    }
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
          Serve(*end, ((event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 ? kReadable : 0U) |
                          ((event.events & EPOLLOUT) != 0 ? kWritable : 0U));
        }
      }
      closed_.clear();
    }
  }

 private:
  void Begin(End& end) override {
    epoll_event event{};
    event.data.ptr = &end;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, end.fd, &event);
  }
  void Poll(End& end, unsigned wanted) override {
    epoll_event event{};
    event.data.ptr = &end;
    event.events =
        ((wanted & kReadable) != 0 ? EPOLLIN : 0U) | ((wanted & kWritable) != 0 ? EPOLLOUT : 0U);
    epoll_ctl(epoll_, EPOLL_CTL_MOD, end.fd, &event);
  }
  void Let(End& end) override { closed_.emplace_back(&end); }

  int epoll_ = -1;
  std::vector<std::unique_ptr<End>> closed_;
};

class UvPollRelay final : public Relay {
 public:
  UvPollRelay(uint16_t listen_port, uint16_t dial_port) : Relay(listen_port, dial_port) {
    uv_loop_init(&loop_);
    uv_poll_init(&loop_, &accepting_, listener());
    accepting_.data = this;
    uv_poll_start(&accepting_, UV_READABLE, [](uv_poll_t* poll, int /*status*/, int /*events*/) {
      static_cast<UvPollRelay*>(poll->data)->Accept();
    });
  }

  [[noreturn]] void Run() {
    uv_run(&loop_, UV_RUN_DEFAULT);
    Die("uv_run");
  }

 private:
  void Begin(End& end) override {
    uv_poll_init(&loop_, &end.poll, end.fd);
    end.poll.data = this;
  }
  void Poll(End& end, unsigned wanted) override {
    uv_poll_start(&end.poll,
                  ((wanted & kReadable) != 0 ? UV_READABLE : 0) |
                      ((wanted & kWritable) != 0 ? UV_WRITABLE : 0),
                  [](uv_poll_t* poll, int status, int events) {
                    // `poll` is the first member.
                    auto& ready = *reinterpret_cast<End*>(poll);
                    static_cast<UvPollRelay*>(poll->data)
                        ->Serve(ready,
                                (status != 0 || (events & UV_READABLE) != 0 ? kReadable : 0U) |
                                    ((events & UV_WRITABLE) != 0 ? kWritable : 0U));
                  });
  }
  void Let(End& end) override {
    uv_close(reinterpret_cast<uv_handle_t*>(&end.poll),
             [](uv_handle_t* poll) { delete reinterpret_cast<End*>(poll); });
  }

  uv_loop_t loop_{};
  uv_poll_t accepting_{};
};

}  // namespace

void RelayByEpoll(uint16_t listen_port, uint16_t dial_port) {
  EpollRelay(listen_port, dial_port).Run();
}

void RelayByUvPoll(uint16_t listen_port, uint16_t dial_port) {
  UvPollRelay(listen_port, dial_port).Run();
}

}  // namespace postern::bench
