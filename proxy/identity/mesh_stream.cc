// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/mesh_stream.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <utility>

#include "postern/v1/mesh.grpc.pb.h"
#include "proxy/identity/let_go.h"
#include "proxy/identity/rpc_status.h"

namespace postern::identity {

// What gRPC calls back into. Owned by the MeshStream, on the main loop: it goes when gRPC has let
// go, and never on a thread of gRPC's, because the channel would end there, and ending the last
// channel of the process waits for that very thread.
//
// Every operation is started by the main loop, so there is no lock: gRPC's own rule for that is a
// hold, taken before the call starts and given back by the main loop once reading has ended. OnDone
// comes only after that and after every operation has ended.
class MeshStream::Core final : public grpc::ClientBidiReactor<v1::MeshRequest, v1::MeshResponse>,
                               public std::enable_shared_from_this<Core> {
 public:
  Core(net::Loop& loop, rpc::IssuerChannel channel, Callbacks callbacks)
      : loop_(loop),
        channel_(std::move(channel)),
        stub_(v1::Mesh::NewStub(channel_.channel())),
        callbacks_(std::move(callbacks)) {}

  void Begin() {
    stub_->async()->Stream(&context_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  void Send(v1::MeshRequest request) {
    if (phase_ != Phase::kOpen) {
      return;
    }
    outgoing_.push_back(std::move(request));
    if (outgoing_.size() == 1) {
      StartWrite(&outgoing_.front());
    }
  }

  // Nothing is called back any more.
  void Abandon() {
    callbacks_ = {};
    context_.TryCancel();
    Release();
    let_go_->Wait();
  }

 private:
  // kOpen: we hold the call. kReleased: no operation is started any more.
  enum class Phase : uint8_t { kOpen, kReleased };

  void Release() {
    if (phase_ == Phase::kOpen) {
      phase_ = Phase::kReleased;
      RemoveHold();
    }
  }

  // From here on gRPC's threads.
  void OnReadDone(bool ok) override {
    Post([ok](Core& core) { core.HandleRead(ok); });
  }
  void OnWriteDone(bool ok) override {
    Post([ok](Core& core) { core.HandleWritten(ok); });
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<LetGo> let_go = let_go_;
    Post([end = FromGrpc(status, channel_.LastRefusal())](Core& core) { core.HandleEnd(end); });
    let_go->Signal();  // the last thing: this and the loop may go now
  }
  template <typename Task>
  void Post(Task task) {
    loop_.Post([weak = weak_from_this(), task = std::move(task)] {
      if (const auto self = weak.lock()) {
        task(*self);
      }
    });
  }

  // The main loop again.
  void HandleRead(bool ok) {
    if (!ok) {
      Release();
      return;
    }
    // A copy: the callback may destroy the stream, and what it captured with it.
    if (const auto on_message = callbacks_.on_message) {
      on_message(incoming_);
    }
    if (phase_ == Phase::kOpen) {
      StartRead(&incoming_);
    }
  }
  void HandleWritten(bool ok) {
    outgoing_.pop_front();
    if (ok && phase_ == Phase::kOpen && !outgoing_.empty()) {
      StartWrite(&outgoing_.front());
    }
  }
  void HandleEnd(const absl::Status& status) {
    if (const auto on_end = std::exchange(callbacks_, {}).on_end) {
      on_end(status);
    }
  }

  net::Loop& loop_;
  rpc::IssuerChannel channel_;
  std::unique_ptr<v1::Mesh::Stub> stub_;
  grpc::ClientContext context_;
  v1::MeshResponse incoming_;             // gRPC's from StartRead to the posted HandleRead
  std::deque<v1::MeshRequest> outgoing_;  // the front is gRPC's while it is written
  Callbacks callbacks_;
  Phase phase_ = Phase::kOpen;
  const std::shared_ptr<LetGo> let_go_ = std::make_shared<LetGo>();
};

MeshStream::MeshStream(std::shared_ptr<Core> core) : core_(std::move(core)) {}
MeshStream::~MeshStream() {
  core_->Abandon();
}

absl::StatusOr<std::unique_ptr<MeshStream>> MeshStream::Open(
    net::Loop& loop, const rpc::IssuerChannelOptions& options, Callbacks callbacks) {
  auto channel = rpc::IssuerChannel::Create(options);
  if (!channel.ok()) {
    return channel.status();
  }
  auto core = std::make_shared<Core>(loop, *std::move(channel), std::move(callbacks));
  core->Begin();
  return std::unique_ptr<MeshStream>(new MeshStream(std::move(core)));
}

void MeshStream::Send(v1::MeshRequest request) {
  core_->Send(std::move(request));
}

}  // namespace postern::identity
