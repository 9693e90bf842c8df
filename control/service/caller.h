// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/base/ip.h"
#include "control/attest/unix_peer.h"
#include "control/service/unix_listener.h"

namespace grpc {
class ServerContextBase;
class Status;
}  // namespace grpc

namespace postern::service {

// Who makes a call, as far as the connection tells. A value.
struct Caller {
  std::string source;                                 // "192.0.2.1:4711" or "unix:uid:0"
  std::string rate_key;                               // what the rate limit counts by
  std::optional<base::IpAddress> ip;                  // none through the unix socket
  std::shared_ptr<const attest::UnixPeer> unix_peer;  // null over TCP
};

// `unix_listener` may be null (TCP alone). A caller that is neither gets an empty source.
Caller WhoCalls(const grpc::ServerContextBase& context, const UnixListener* unix_listener);

// The only place where a Status becomes a grpc::Status. OK maps to OK.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace postern::service
