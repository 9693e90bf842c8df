// SPDX-License-Identifier: Apache-2.0
// The same relay over libuv's own streams: uv_read_start, uv_try_write, and uv_write for the rest.
#include <uv.h>

#include <memory>

#include "floor.h"

namespace postern::bench {
namespace {

class Relay;

struct End {
  uv_tcp_t tcp{};
  Relay* relay = nullptr;
  End* other = nullptr;
  uv_connect_t connecting{};
  uv_write_t writing{};
  uv_shutdown_t shutting{};
  std::vector<uint8_t> rest;  // being written
  bool ended = false;
  bool closing = false;
};

uv_stream_t* StreamOf(End& end) {
  return reinterpret_cast<uv_stream_t*>(&end.tcp);
}

class Relay {
 public:
  Relay(uint16_t listen_port, uint16_t dial_port) : dial_(Loopback(dial_port)), buffer_(kRead) {
    uv_loop_init(&loop_);
    uv_tcp_init(&loop_, &listener_);
    listener_.data = this;
    const sockaddr_in address = Loopback(listen_port);
    if (uv_tcp_bind(&listener_, reinterpret_cast<const sockaddr*>(&address), 0) != 0 ||
        uv_listen(reinterpret_cast<uv_stream_t*>(&listener_), 1024,
                  [](uv_stream_t* listener, int /*status*/) {
                    static_cast<Relay*>(listener->data)->Accept();
                  }) != 0) {
      Die("listen");
    }
  }

  [[noreturn]] void Run() {
    uv_run(&loop_, UV_RUN_DEFAULT);
    Die("uv_run");
  }

 private:
  static End& EndOf(uv_stream_t* stream) { return *static_cast<End*>(stream->data); }

  void Accept() {
    auto* downstream = new End;
    auto* upstream = new End;
    for (End* end : {downstream, upstream}) {
      end->relay = this;
      end->other = end == downstream ? upstream : downstream;
      uv_tcp_init(&loop_, &end->tcp);
      end->tcp.data = end;
    }
    uv_accept(reinterpret_cast<uv_stream_t*>(&listener_), StreamOf(*downstream));
    upstream->connecting.data = upstream;
    uv_tcp_connect(&upstream->connecting, &upstream->tcp, reinterpret_cast<const sockaddr*>(&dial_),
                   [](uv_connect_t* request, int status) {
                     auto& end = *static_cast<End*>(request->data);
                     if (status != 0) {
                       Close(end);
                       return;
                     }
                     for (End* one : {&end, end.other}) {
                       uv_tcp_nodelay(&one->tcp, 1);
                       Read(*one);
                     }
                   });
  }

  static void Read(End& end) {
    uv_read_start(
        StreamOf(end),
        [](uv_handle_t* handle, size_t /*suggested*/, uv_buf_t* buffer) {
          std::vector<uint8_t>& shared = static_cast<End*>(handle->data)->relay->buffer_;
          *buffer = uv_buf_init(reinterpret_cast<char*>(shared.data()), kRead);
        },
        [](uv_stream_t* stream, ssize_t got, const uv_buf_t* /*buffer*/) {
          End& from = EndOf(stream);
          if (got > 0) {
            from.relay->Carry(from, static_cast<size_t>(got));
          } else if (got == UV_EOF) {
            OnEnd(from);
          } else if (got < 0) {
            Close(from);
          }
        });
  }

  void Carry(End& from, size_t size) {
    End& to = *from.other;
    cipher_.Work(buffer_.data(), size);
    const uv_buf_t whole =
        uv_buf_init(reinterpret_cast<char*>(buffer_.data()), static_cast<unsigned>(size));
    const int sent = uv_try_write(StreamOf(to), &whole, 1);
    if (sent < 0 && sent != UV_EAGAIN) {
      Close(from);
      return;
    }
    const int taken = std::max(sent, 0);
    if (static_cast<size_t>(taken) == size) {
      return;
    }
    to.rest.assign(buffer_.begin() + taken, buffer_.begin() + static_cast<ptrdiff_t>(size));
    uv_read_stop(StreamOf(from));
    const uv_buf_t rest =
        uv_buf_init(reinterpret_cast<char*>(to.rest.data()), static_cast<unsigned>(to.rest.size()));
    to.writing.data = &to;
    uv_write(&to.writing, StreamOf(to), &rest, 1, [](uv_write_t* request, int status) {
      auto& end = *static_cast<End*>(request->data);
      if (status != 0) {
        Close(end);
      } else if (!end.other->closing && !end.other->ended) {
        Read(*end.other);
      }
    });
  }

  static void OnEnd(End& from) {
    from.ended = true;
    uv_read_stop(StreamOf(from));
    if (from.other->ended) {
      Close(from);
    } else {
      uv_shutdown(&from.other->shutting, StreamOf(*from.other), nullptr);
    }
  }

  static void Close(End& end) {
    for (End* one : {&end, end.other}) {
      if (!std::exchange(one->closing, true)) {
        uv_close(reinterpret_cast<uv_handle_t*>(&one->tcp),
                 [](uv_handle_t* handle) { Freed(*static_cast<End*>(handle->data)); });
      }
    }
  }

  // Both are closed in one turn; each may look at the other until the second is done with.
  static void Freed(End& end) {
    if (end.relay == nullptr) {
      return;
    }
    End* const other = end.other;
    end.relay = nullptr;
    if (other->relay == nullptr) {
      delete other;
      delete &end;
    }
  }

  const sockaddr_in dial_;
  std::vector<uint8_t> buffer_;
  Cipher cipher_;
  uv_loop_t loop_{};
  uv_tcp_t listener_{};
};

}  // namespace

void RelayByUvTcp(uint16_t listen_port, uint16_t dial_port) {
  Relay(listen_port, dial_port).Run();
}

}  // namespace postern::bench
