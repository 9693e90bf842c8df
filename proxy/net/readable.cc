// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/readable.h"

#include <uv.h>

#include <utility>

#include "proxy/net/errno_status.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"

namespace postern::net {

struct Readable::Block final : HandleBlock {
  uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&poll); }
  static void OnPoll(uv_poll_t* poll, int /*status*/, int /*events*/) noexcept {
    auto* block = static_cast<Block*>(static_cast<HandleBlock*>(poll->data));
    if (block->usable()) {
      block->callback();
    }
  }

  uv_poll_t poll{};
  std::function<void()> callback;
};

absl::StatusOr<std::unique_ptr<Readable>> Readable::Watch(Loop& loop, int fd,
                                                          std::function<void()> callback) {
  auto block = std::make_unique<Block>();
  block->callback = std::move(callback);
  if (const int error = uv_poll_init(&loop.impl()->loop, &block->poll, fd); error != 0) {
    return ErrnoStatus(-error, "poll");
  }
  block->poll.data = static_cast<HandleBlock*>(block.get());
  uv_poll_start(&block->poll, UV_READABLE, &Block::OnPoll);
  return std::unique_ptr<Readable>(new Readable(block.release()));
}

Readable::~Readable() {
  block_->Release();
}

}  // namespace postern::net
