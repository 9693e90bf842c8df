// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"

namespace postern::net {

enum class IoOutcome : uint8_t {
  kDone,        // `bytes` were moved (at least one)
  kWouldBlock,  // nothing now; wait for readiness
  kEnd,         // read only: the peer sent FIN
  kReset,       // ECONNRESET, EPIPE, ENOTCONN
  kError,       // any other errno
};

struct IoResult {
  IoOutcome outcome = IoOutcome::kError;
  size_t bytes = 0;
  int error = 0;  // errno for kReset and kError
};

// A connected, non-blocking stream socket (TCP or unix) on a loop. Owns the descriptor. Level
// triggered: OnReadable comes again while bytes wait and reading is wanted. May be destroyed inside
// its own callbacks. No buffer of its own.
class Stream {
 public:
  // Told of readiness; owned by somebody else, outlives the stream or is replaced (SetHandler).
  class Handler {
   public:
    virtual void OnReadable(Stream& stream) noexcept = 0;
    virtual void OnWritable(Stream& stream) noexcept = 0;

   protected:
    ~Handler() = default;
  };

  // Takes over `fd`, sets O_NONBLOCK, and for TCP: TCP_NODELAY, keepalive 60/10/6.
  static absl::StatusOr<std::unique_ptr<Stream>> Adopt(Loop& loop, int fd);
  ~Stream();  // close(2) in the ordinary way; see Reset
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void SetHandler(Handler* handler);

  // One recv(2) or send(2) (MSG_NOSIGNAL).
  IoResult Read(base::MutableByteSpan buffer);
  IoResult Write(base::ByteSpan bytes);

  // Which readiness to report. The poll mask changes only when these change.
  void WantRead(bool want);
  void WantWrite(bool want);
  bool wants_read() const;
  bool wants_write() const;

  // shutdown(SHUT_WR): the peer reads the end after what was written.
  absl::Status ShutdownWrite();
  // Closes so that the peer sees RST (SO_LINGER 0). The stream is dead afterwards.
  void Reset();

  absl::StatusOr<SocketAddress> PeerAddress() const;
  absl::StatusOr<SocketAddress> LocalAddress() const;
  // How long the oldest sent byte has been waiting for its acknowledgement; zero when nothing is in
  // flight (TCP_INFO). Used to find a dead peer without killing a live reader whose window is zero.
  absl::StatusOr<std::chrono::milliseconds> Unacknowledged() const;
  int fd() const;

 private:
  friend class StreamAdopter;
  struct Block;
  explicit Stream(Block* block) : block_(block) {}
  Block* block_;  // heap memory that libuv may call back into: freed by its close callback
};

}  // namespace postern::net
