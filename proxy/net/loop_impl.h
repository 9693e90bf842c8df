// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <uv.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop.h"

namespace postern::net {

// What a Loop is made of; for proxy/net alone, which needs the uv_loop_t. Loop thread only, but for
// the members that `mutex` guards and the atomics.
struct Loop::Impl {
  static Impl* From(const uv_loop_t* loop) { return static_cast<Impl*>(uv_loop_get_data(loop)); }

  absl::Status Open();
  void Close();
  void RunPosted();
  void RunDeferred();

  uv_loop_t loop{};
  uv_async_t async{};
  uv_check_t check{};
  uv_idle_t idle{};

  std::vector<std::function<void()>> deferred;
  std::vector<std::function<void()>> running;  // keeps its capacity from turn to turn
  std::vector<HandleBlock*> signals;           // released in Close

  std::atomic<std::thread::id> thread{std::this_thread::get_id()};
  std::atomic<bool> stop_wanted{false};
  std::mutex mutex;
  std::vector<std::function<void()>> posted;                        // guarded by mutex
  enum class Gate : uint8_t { kOpen, kClosed } gate = Gate::kOpen;  // guarded by mutex
};

}  // namespace postern::net
