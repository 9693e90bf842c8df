// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/timer.h"

#include <uv.h>

#include <algorithm>
#include <utility>

#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"

namespace postern::net {

// The callback lives here, so that a timer which is destroyed inside it does not destroy it under
// its own feet.
struct Timer::Block final : HandleBlock {
  uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&timer); }
  static void OnTimer(uv_timer_t* timer) noexcept {
    auto* block = static_cast<Block*>(static_cast<HandleBlock*>(timer->data));
    if (block->usable()) {
      block->callback();
    }
  }
  void Arm(std::chrono::milliseconds delay, std::chrono::milliseconds period) {
    if (usable()) {
      const auto ms = [](std::chrono::milliseconds d) {
        return static_cast<uint64_t>(std::max<int64_t>(d.count(), 0));
      };
      uv_timer_start(&timer, &OnTimer, ms(delay), ms(period));
    }
  }

  uv_timer_t timer{};
  std::function<void()> callback;
};

Timer::Timer(Loop& loop, std::function<void()> callback)
    : block_(std::make_unique<Block>().release()) {
  block_->callback = std::move(callback);
  uv_timer_init(&loop.impl()->loop, &block_->timer);
  block_->timer.data = static_cast<HandleBlock*>(block_);
}

Timer::~Timer() {
  block_->Release();
}

void Timer::Start(std::chrono::milliseconds delay) {
  block_->Arm(delay, std::chrono::milliseconds(0));
}

void Timer::StartRepeating(std::chrono::milliseconds period) {
  // libuv takes a period of zero for "once".
  const auto at_least = std::max(period, std::chrono::milliseconds(1));
  block_->Arm(at_least, at_least);
}

void Timer::Stop() {
  if (block_->usable()) {
    uv_timer_stop(&block_->timer);
  }
}

bool Timer::IsArmed() const {
  return block_->usable() &&
         uv_is_active(reinterpret_cast<const uv_handle_t*>(&block_->timer)) != 0;
}

}  // namespace postern::net
