// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/issuer_channel.h"
#include "proxy/net/loop.h"

namespace postern::v1 {
class MeshRequest;
class MeshResponse;
}  // namespace postern::v1

namespace postern::identity {

// One Mesh stream on a channel of its own: from its beginning to its end, without retries. Lives on
// the main loop and is driven from there alone; gRPC's threads only post. Reads one message ahead:
// a busy main loop slows the issuer down instead of filling memory.
class MeshStream {
 public:
  struct Callbacks {
    // A message came. The stream may be destroyed inside.
    std::function<void(const v1::MeshResponse&)> on_message;
    // The stream has ended, for whichever reason (OK: the issuer ended it). Nothing comes after it.
    // The stream may be destroyed inside.
    std::function<void(absl::Status)> on_end;
  };

  // Errors of the channel's options come at once; everything later through on_end. `loop` and the
  // options' clock outlive it.
  static absl::StatusOr<std::unique_ptr<MeshStream>> Open(net::Loop& loop,
                                                          const rpc::IssuerChannelOptions& options,
                                                          Callbacks callbacks);

  // Cancels, and waits until gRPC has let go (at once, as gRPC only posts).
  ~MeshStream();
  MeshStream(const MeshStream&) = delete;
  MeshStream& operator=(const MeshStream&) = delete;

  // Queues one message; ignored after the end. The queue is as long as its user lets it be: each
  // answer is acknowledged once, and subscriptions are bounded by EndpointCache.
  void Send(v1::MeshRequest request);

 private:
  class Core;
  explicit MeshStream(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

}  // namespace postern::identity
