// SPDX-License-Identifier: Apache-2.0
#include "control/service/caller.h"

#include <grpcpp/server_context.h>

#include "absl/strings/str_replace.h"
#include "common/base/strings.h"

namespace postern::service {
namespace {

// gRPC writes "ipv4:192.0.2.1:4711" and "ipv6:%5B2001:db8::1%5D:4711" (or with plain brackets).
std::optional<base::IpAddress> PeerIp(std::string_view host_and_port) {
  const size_t colon = host_and_port.rfind(':');
  if (colon == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view host = host_and_port.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  host = host.substr(0, host.find('%'));  // a link-local scope
  const absl::StatusOr<base::IpAddress> ip = base::IpAddress::Parse(host);
  return ip.ok() ? std::optional(*ip) : std::nullopt;
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
