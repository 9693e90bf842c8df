// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/loop.h"

#include <uv.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"

namespace postern::net {
namespace {

struct SignalBlock final : HandleBlock {
  uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&signal); }
  uv_signal_t signal{};
  std::function<void()> handler;
};

void OnUvSignal(uv_signal_t* signal, int /*number*/) noexcept {
  auto* block = static_cast<SignalBlock*>(static_cast<HandleBlock*>(signal->data));
  if (block->usable()) {
    block->handler();
  }
}

void OnUvIdle(uv_idle_t* /*idle*/) noexcept {}

void OnUvAsync(uv_async_t* async) noexcept {
  Loop::Impl::From(async->loop)->RunPosted();
}
void OnUvCheck(uv_check_t* check) noexcept {
  Loop::Impl::From(check->loop)->RunDeferred();
}

// Destroying a task may add tasks (a session in it says goodbye): until nothing is left.
void DestroyAll(std::vector<std::function<void()>>& tasks) {
  while (!tasks.empty()) {
    std::vector<std::function<void()>> batch;
    batch.swap(tasks);
  }
}

}  // namespace

absl::Status Loop::Impl::Open() {
  int error = uv_loop_init(&loop);
  if (error != 0) {
    return absl::ResourceExhaustedError(base::StrCat("event loop: ", uv_strerror(error)));
  }
  uv_loop_set_data(&loop, this);
  error = uv_async_init(&loop, &async, &OnUvAsync);
  if (error != 0) {
    uv_loop_close(&loop);
    return absl::ResourceExhaustedError(base::StrCat("event loop: ", uv_strerror(error)));
  }
  uv_check_init(&loop, &check);
  uv_check_start(&check, &OnUvCheck);
  uv_idle_init(&loop, &idle);
  return absl::OkStatus();
}

void Loop::Impl::RunPosted() {
  if (stop_wanted.load(std::memory_order_acquire)) {
    uv_stop(&loop);
  }
  std::vector<std::function<void()>> batch;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    batch.swap(posted);
  }
  for (std::function<void()>& task : batch) {
    task();
    task = nullptr;
  }
}

void Loop::Impl::RunDeferred() {
  if (deferred.empty()) {
    return;
  }
  running.swap(deferred);
  for (std::function<void()>& task : running) {
    task();
    task = nullptr;
  }
  running.clear();
  if (deferred.empty()) {
    uv_idle_stop(&idle);
  }
}

void Loop::Impl::Close() {
  std::vector<std::function<void()>> unrun;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    gate = Gate::kClosed;
    unrun.swap(posted);
  }
  DestroyAll(unrun);
  for (HandleBlock* block : signals) {
    block->Release();
  }
  signals.clear();
  DestroyAll(deferred);
  uv_walk(
      &loop, [](uv_handle_t* handle, void*) { HandleBlock::CloseForLoop(handle); }, nullptr);
  // Closing takes one turn; nothing is active any more, so that this cannot wait.
  while (uv_loop_close(&loop) == UV_EBUSY) {
    uv_run(&loop, UV_RUN_DEFAULT);
  }
}

Loop::Loop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Loop::~Loop() {
  impl_->Close();
}

absl::StatusOr<std::unique_ptr<Loop>> Loop::Create() {
  auto impl = std::make_unique<Impl>();
  const absl::Status opened = impl->Open();
  if (!opened.ok()) {
    return opened;
  }
  return std::unique_ptr<Loop>(new Loop(std::move(impl)));
}

void Loop::Run() {
  impl_->thread.store(std::this_thread::get_id(), std::memory_order_relaxed);
  uv_update_time(&impl_->loop);
  uv_run(&impl_->loop, UV_RUN_DEFAULT);
  impl_->stop_wanted.store(false, std::memory_order_release);
}

void Loop::Stop() {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->gate == Impl::Gate::kClosed) {
    return;
  }
  impl_->stop_wanted.store(true, std::memory_order_release);
  uv_async_send(&impl_->async);
}

bool Loop::Post(std::function<void()> task) {
  // The wake-up is sent under the lock: behind a closed gate the async handle may be gone.
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->gate == Impl::Gate::kClosed) {
    return false;
  }
  impl_->posted.push_back(std::move(task));
  if (impl_->posted.size() == 1) {
    uv_async_send(&impl_->async);
  }
  return true;
}

void Loop::Defer(std::function<void()> task) {
  impl_->deferred.push_back(std::move(task));
  // Keeps the loop from waiting for I/O while there is something to do in this turn's check phase.
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&impl_->idle)) == 0) {
    uv_idle_start(&impl_->idle, &OnUvIdle);
  }
}

std::chrono::milliseconds Loop::Now() const {
  return std::chrono::milliseconds(uv_now(&impl_->loop));
}

bool Loop::IsInLoopThread() const {
  return impl_->thread.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

size_t Loop::OpenHandles() const {
  size_t count = 0;
  uv_walk(
      &impl_->loop,
      [](uv_handle_t* handle, void* counter) {
        if (handle->data != nullptr && uv_is_closing(handle) == 0) {
          ++*static_cast<size_t*>(counter);
        }
      },
      &count);
  return count;
}

absl::Status Loop::OnSignal(int signal_number, std::function<void()> handler) {
  auto block = std::make_unique<SignalBlock>();
  int error = uv_signal_init(&impl_->loop, &block->signal);
  if (error != 0) {
    return absl::InternalError(base::StrCat("signal ", signal_number, ": ", uv_strerror(error)));
  }
  block->handler = std::move(handler);
  SignalBlock* held = block.release();
  held->signal.data = static_cast<HandleBlock*>(held);
  error = uv_signal_start(&held->signal, &OnUvSignal, signal_number);
  if (error != 0) {
    held->Release();
    return absl::InternalError(base::StrCat("signal ", signal_number, ": ", uv_strerror(error)));
  }
  impl_->signals.push_back(held);
  return absl::OkStatus();
}

}  // namespace postern::net
