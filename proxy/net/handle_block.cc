// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/handle_block.h"

namespace postern::net {

void HandleBlock::Release() noexcept {
  if (state_ == State::kClosed) {
    delete this;
    return;
  }
  state_ = State::kReleased;
  if (uv_is_closing(handle()) == 0) {
    uv_close(handle(), &HandleBlock::OnClosed);
  }
}

void HandleBlock::CloseForLoop(uv_handle_t* handle) noexcept {
  if (uv_is_closing(handle) == 0) {
    uv_close(handle, handle->data == nullptr ? nullptr : &HandleBlock::OnClosed);
  }
}

void HandleBlock::OnClosed(uv_handle_t* handle) noexcept {
  auto* block = static_cast<HandleBlock*>(handle->data);
  if (block->state_ == State::kReleased) {
    delete block;
  } else {
    block->state_ = State::kClosed;
  }
}

}  // namespace postern::net
