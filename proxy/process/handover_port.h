// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"
#include "common/handover/handover.h"
#include "proxy/net/loop.h"
#include "proxy/net/readable.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/timer.h"
#include "proxy/session/handed_over.h"

namespace postern::process {

// The proxy's end of the channel to `postern run` (--handover-fd): takes what is handed over, says
// once that the proxy is ready, and notices when `postern run` has ended. Main loop's thread.
class HandoverPort {
 public:
  struct Callbacks {
    std::function<bool()> is_ready;
    std::function<void(session::HandedConnection)> on_connection;
    std::function<void(std::shared_ptr<const base::UniqueFd> listening,
                       const net::SocketAddress& target)>
        on_listener;
    std::function<void()> on_gone;  // once
  };

  // Takes over the inherited descriptor. InvalidArgument: it is no such channel.
  static absl::StatusOr<std::unique_ptr<HandoverPort>> Open(net::Loop& loop, int fd,
                                                            Callbacks callbacks);

 private:
  HandoverPort(net::Loop& loop, int fd, Callbacks callbacks);
  void OnReadable();
  void Take(handover::Received received);
  void TellWhenReady();
  void Gone();

  base::UniqueFd channel_;
  Callbacks callbacks_;
  std::unique_ptr<net::Readable> readable_;  // gone before the descriptor
  net::Timer readiness_;
};

}  // namespace postern::process
