// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/socket_table.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>

#include "common/base/bytes.h"
#include "proxy/intercept/netlink.h"
#include "proxy/net/errno_status.h"

namespace postern::intercept {
namespace {

constexpr uint32_t kStates = 1U << TCP_LISTEN | 1U << TCP_ESTABLISHED | 1U << TCP_SYN_SENT |
                             1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 | 1U << TCP_CLOSE_WAIT;
// Asks NETLINK_SOCK_DIAG. Returns 0 or the errno.
int Ask(uint16_t type, uint16_t flags, const inet_diag_req_v2& request,
        const std::function<void(const inet_diag_msg&, size_t size)>& found) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 body;
  } message{};
  message.header.nlmsg_len = sizeof(message);
  message.header.nlmsg_type = type;
  message.header.nlmsg_flags = flags;
  message.body = request;
  return Netlink(NETLINK_SOCK_DIAG)
      .Ask(message.header, [&found](const nlmsghdr&, const void* body, size_t size) {
        if (size >= sizeof(inet_diag_msg)) {
          found(*static_cast<const inet_diag_msg*>(body), size);
        }
      });
}

base::IpAddress AddressOf(uint8_t family, const __be32* words) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(words);
  const size_t size = family == AF_INET ? 4 : 16;
  return base::IpAddress::FromBytes(base::ByteSpan(bytes, size)).value_or(base::IpAddress());
}

uint32_t MarkOf(const inet_diag_msg& message, size_t size) {
  auto left = static_cast<uint32_t>(size - NLMSG_ALIGN(sizeof(message)));
  const auto* attribute = reinterpret_cast<const rtattr*>(reinterpret_cast<const char*>(&message) +
                                                          NLMSG_ALIGN(sizeof(message)));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    uint32_t mark = 0;
    if (attribute->rta_type == INET_DIAG_MARK && RTA_PAYLOAD(attribute) == sizeof(mark)) {
      std::memcpy(&mark, RTA_DATA(attribute), sizeof(mark));
      return mark;
    }
  }
  return 0;
}

std::map<base::IpAddress, std::string> Interfaces() {
  std::map<base::IpAddress, std::string> names;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return names;
  }
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) {
      continue;
    }
    if (one->ifa_addr->sa_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      names[AddressOf(AF_INET, &v4->sin_addr.s_addr)] = one->ifa_name;
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      names[AddressOf(AF_INET6, v6->sin6_addr.s6_addr32)] = one->ifa_name;
    }
  }
  freeifaddrs(list);
  return names;
}

}  // namespace

absl::StatusOr<std::vector<TcpSocket>> ReadTcpSockets() {
  const std::map<base::IpAddress, std::string> interfaces = Interfaces();
  std::vector<TcpSocket> sockets;
  for (const uint8_t family : std::array<uint8_t, 2>{AF_INET, AF_INET6}) {
    inet_diag_req_v2 request{};
    request.sdiag_family = family;
    request.sdiag_protocol = IPPROTO_TCP;
    request.idiag_states = kStates;
    const int error = Ask(
        SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request, [&](const inet_diag_msg& message, size_t size) {
          TcpSocket one;
          one.listening = message.idiag_state == TCP_LISTEN;
          one.local_ip = AddressOf(message.idiag_family, message.id.idiag_src);
          one.peer_ip = AddressOf(message.idiag_family, message.id.idiag_dst);
          one.local_port = ntohs(message.id.idiag_sport);
          one.peer_port = ntohs(message.id.idiag_dport);
          one.uid = message.idiag_uid;
          one.mark = MarkOf(message, size);
          if (const auto at = interfaces.find(one.local_ip); at != interfaces.end()) {
            one.interface = at->second;
          }
          one.family = message.idiag_family;
          one.id = message.id;
          sockets.push_back(std::move(one));
        });
    if (error != 0) {
      return net::ErrnoStatus(error, "cannot list the TCP sockets");
    }
  }
  return sockets;
}

absl::StatusOr<bool> HasTcpConnection(const net::SocketAddress& local,
                                      const net::SocketAddress& peer) {
  inet_diag_req_v2 request{};
  request.sdiag_family = local.ip().is_v4() ? AF_INET : AF_INET6;
  request.sdiag_protocol = IPPROTO_TCP;
  request.idiag_states = ~0U;
  request.id.idiag_sport = htons(local.port());
  request.id.idiag_dport = htons(peer.port());
  const base::ByteSpan source = local.ip().bytes();
  const base::ByteSpan destination = peer.ip().bytes();
  std::memcpy(request.id.idiag_src, source.data(), source.size());
  std::memcpy(request.id.idiag_dst, destination.data(), destination.size());
  request.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
  request.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  bool connected = false;
  const int error = Ask(SOCK_DIAG_BY_FAMILY, NLM_F_ACK, request,
                        [&connected](const inet_diag_msg& message, size_t) {
                          // Where there is no connection, who listens there is the answer.
                          connected = message.idiag_state != TCP_LISTEN;
                        });
  if (error != 0 && error != ENOENT) {
    return net::ErrnoStatus(error, "cannot look a TCP connection up");
  }
  return connected;
}

absl::Status DestroySocket(const TcpSocket& socket) {
  inet_diag_req_v2 request{};
  request.sdiag_family = socket.family;
  request.sdiag_protocol = IPPROTO_TCP;
  request.idiag_states = ~0U;
  request.id = socket.id;
  const int error = Ask(SOCK_DESTROY, NLM_F_ACK, request, [](const inet_diag_msg&, size_t) {});
  switch (error) {
    case 0:
    case ENOENT:
      return absl::OkStatus();
    case EOPNOTSUPP:
      return absl::UnimplementedError(
          "this kernel cannot end connections of others (CONFIG_INET_DIAG_DESTROY)");
    default:
      return net::ErrnoStatus(error, "cannot end a connection");
  }
}

}  // namespace postern::intercept
