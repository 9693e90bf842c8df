// SPDX-License-Identifier: Apache-2.0
#include "control/service/caller.h"

#include <grpcpp/server_context.h>

#include "absl/strings/str_replace.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"

namespace postern::service {
namespace {

// gRPC writes "ipv4:192.0.2.1:4711" and "ipv6:%5B2001:db8::1%5D:4711" (or with plain brackets).
std::optional<base::IpAddress> PeerIp(std::string_view host_and_port) {
  const auto parsed = base::HostPort::Parse(host_and_port, {.port_0 = true, .zone = true});
  return parsed.ok() ? parsed->ip : std::nullopt;
}

}  // namespace

Caller WhoCalls(const grpc::ServerContextBase& context, const UnixListener* unix_listener) {
  const std::string peer =
      absl::StrReplaceAll(context.peer(), {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
  Caller caller;
  const std::string_view text = peer;
  if (text.starts_with("ipv4:") || text.starts_with("ipv6:")) {
    caller.source = text.substr(5);
    caller.ip = PeerIp(caller.source);
    caller.rate_key = caller.ip.has_value() ? caller.ip->ToString() : std::string("?");
  } else if (unix_listener != nullptr) {
    caller.unix_peer = unix_listener->PeerOf(peer);
    if (caller.unix_peer != nullptr) {
      caller.source = base::StrCat("unix:uid:", caller.unix_peer->uid());
      caller.rate_key = caller.source;
    }
  }
  return caller;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  // The numbers of both are those of google.rpc.Code.
  return {static_cast<grpc::StatusCode>(status.code()), std::string(base::Message(status))};
}

}  // namespace postern::service
