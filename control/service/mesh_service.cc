// SPDX-License-Identifier: Apache-2.0
#include "control/service/mesh_service.h"

#include <condition_variable>
#include <deque>
#include <thread>
#include <vector>

#include "control/service/mesh_stream.h"
#include "postern/v1/mesh.grpc.pb.h"

namespace postern::service {
namespace {

constexpr auto kTickPeriod = std::chrono::seconds(1);
// New streams a second from one source, before it is known who it is: streams that never say who
// they are would else fill all places for as long as a hello may take.
constexpr double kStreamsPerSecond = 200;

// Answers one status at once: for streams over the limit.
class Refusal final : public grpc::ServerBidiReactor<v1::MeshRequest, v1::MeshResponse> {
 public:
  explicit Refusal(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

// Two threads: `worker` runs what blocks, one task after the other; `ticker` looks after the
// streams once a second.
struct MeshService::Impl final : public v1::Mesh::CallbackService {
  explicit Impl(const ServiceParts& service_parts)
      : parts(service_parts), limit(kStreamsPerSecond, *service_parts.clock) {}

  grpc::ServerBidiReactor<v1::MeshRequest, v1::MeshResponse>* Stream(
      grpc::CallbackServerContext* context) override;

  void Post(std::function<void()> task);
  void Work();
  void TickAll();

  const ServiceParts parts;
  RateLimiter limit;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::deque<std::function<void()>> tasks;  // bounded by the number of streams
  std::vector<std::weak_ptr<MeshStream>> streams;
  std::thread worker;
  std::thread ticker;
};

grpc::ServerBidiReactor<v1::MeshRequest, v1::MeshResponse>* MeshService::Impl::Stream(
    grpc::CallbackServerContext* context) {
  if (limit.Take(WhoCalls(*context, parts.unix_listener).rate_key) > absl::ZeroDuration()) {
    parts.counters->streams_refused.fetch_add(1);
    return new Refusal(absl::ResourceExhaustedError("too many new mesh streams from this source"));
  }
  const auto stream = std::make_shared<MeshStream>(
      parts, *context, [this](std::function<void()> task) { Post(std::move(task)); });
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (streams.size() >= kMaxMeshStreams) {
      parts.counters->streams_refused.fetch_add(1);
      return new Refusal(absl::ResourceExhaustedError("too many mesh streams"));
    }
    streams.push_back(stream);
  }
  stream->Begin();
  return stream.get();
}

void MeshService::Impl::Post(std::function<void()> task) {
  const std::lock_guard<std::mutex> lock(mutex);
  tasks.push_back(std::move(task));
  changed.notify_all();
}

void MeshService::Impl::Work() {
  std::unique_lock<std::mutex> lock(mutex);
  while (true) {
    changed.wait(lock, [this] { return stopping || !tasks.empty(); });
    if (tasks.empty()) {
      return;
    }
    std::function<void()> task = std::move(tasks.front());
    tasks.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // with what it holds, which may be the last of a stream
    lock.lock();
  }
}

void MeshService::Impl::TickAll() {
  std::unique_lock<std::mutex> lock(mutex);
  while (!changed.wait_for(lock, kTickPeriod, [this] { return stopping; })) {
    std::erase_if(streams, [](const auto& stream) { return stream.expired(); });
    const std::vector<std::weak_ptr<MeshStream>> present = streams;
    lock.unlock();
    for (const std::weak_ptr<MeshStream>& weak : present) {
      if (const std::shared_ptr<MeshStream> stream = weak.lock()) {
        stream->Tick();
      }
    }
    lock.lock();
  }
}

MeshService::MeshService(const ServiceParts& parts) : impl_(std::make_unique<Impl>(parts)) {
  impl_->worker = std::thread([impl = impl_.get()] { impl->Work(); });
  impl_->ticker = std::thread([impl = impl_.get()] { impl->TickAll(); });
}

MeshService::~MeshService() {
  {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->changed.notify_all();
  impl_->worker.join();
  impl_->ticker.join();
}

grpc::Service* MeshService::service() {
  return impl_.get();
}

}  // namespace postern::service
