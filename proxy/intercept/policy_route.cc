// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/policy_route.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "common/base/strings.h"
#include "proxy/intercept/netlink.h"
#include "proxy/net/errno_status.h"

namespace postern::intercept {
namespace {

// "Who made this", shown by `ip -d rule`; so only our own are removed.
constexpr uint8_t kProtocol = 0x50;

template <typename Body>
struct Message {
  nlmsghdr header{};
  Body body{};
  std::array<char, 128> attributes{};

  Message(uint16_t type, uint16_t flags) {
    header.nlmsg_type = type;
    header.nlmsg_flags = flags;
    header.nlmsg_len = NLMSG_LENGTH(sizeof(Body));
  }
  template <typename Value>
  void Add(uint16_t type, Value value) {
    char* const at = reinterpret_cast<char*>(&header) + NLMSG_ALIGN(header.nlmsg_len);
    rtattr attribute{};
    attribute.rta_type = type;
    attribute.rta_len = RTA_LENGTH(sizeof(value));
    std::memcpy(at, &attribute, sizeof(attribute));
    std::memcpy(at + RTA_LENGTH(0), &value, sizeof(value));
    header.nlmsg_len =
        NLMSG_ALIGN(header.nlmsg_len) + static_cast<uint32_t>(RTA_SPACE(sizeof(value)));
  }
};

using RuleMessage = Message<fib_rule_hdr>;
using RouteMessage = Message<rtmsg>;

RuleMessage MakeRule(uint16_t type, uint16_t flags, uint8_t family, uint32_t table) {
  RuleMessage message(type, flags);
  message.body.family = family;
  message.body.action = FR_ACT_TO_TBL;
  message.Add(FRA_TABLE, table);
  message.Add(FRA_PRIORITY, table);
  message.Add(FRA_PROTOCOL, kProtocol);
  return message;
}

RouteMessage MakeRoute(uint16_t type, uint16_t flags, uint8_t family, uint32_t table) {
  RouteMessage message(type, flags);
  message.body.rtm_family = family;
  message.body.rtm_protocol = kProtocol;
  message.body.rtm_scope = RT_SCOPE_HOST;
  message.body.rtm_type = RTN_LOCAL;
  message.Add(RTA_TABLE, table);
  message.Add(RTA_OIF, if_nametoindex("lo"));
  return message;
}

int Change(nlmsghdr& header) {
  header.nlmsg_flags = static_cast<uint16_t>(header.nlmsg_flags | NLM_F_ACK);
  return Netlink(NETLINK_ROUTE).Ask(header, [](const nlmsghdr&, const void*, size_t) {});
}

absl::Status Explain(int error, std::string_view what) {
  if (error == EPERM || error == EACCES) {
    return absl::PermissionDeniedError(base::StrCat(
        what,
        ": not allowed here: run this as root (CAP_NET_ADMIN), or inside the workload's "
        "network namespace"));
  }
  return net::ErrnoStatus(error, what);
}

bool HasIpv6() {
  const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return bound;
}

std::vector<uint8_t> Families() {
  std::vector<uint8_t> families = {AF_INET};
  if (HasIpv6()) {
    families.push_back(AF_INET6);
  }
  return families;
}

// The 32-bit attribute of that type; 0 without one.
uint32_t Number(const void* body, size_t body_size, size_t header_size, uint16_t type) {
  auto left = static_cast<uint32_t>(body_size - NLMSG_ALIGN(header_size));
  const auto* attribute =
      reinterpret_cast<const rtattr*>(static_cast<const char*>(body) + NLMSG_ALIGN(header_size));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    uint32_t number = 0;
    if (attribute->rta_type == type && RTA_PAYLOAD(attribute) >= sizeof(number)) {
      std::memcpy(&number, RTA_DATA(attribute), sizeof(number));
      return number;
    }
  }
  return 0;
}

absl::StatusOr<bool> HasRule(uint8_t family, const PolicyRoute& route) {
  RuleMessage message(RTM_GETRULE, NLM_F_DUMP);
  message.body.family = family;
  bool found = false;
  const int error =
      Netlink(NETLINK_ROUTE)
          .Ask(message.header, [&](const nlmsghdr& header, const void* body, size_t size) {
            if (header.nlmsg_type != RTM_NEWRULE || size < sizeof(fib_rule_hdr)) {
              return;
            }
            const auto number = [&](uint16_t type) {
              return Number(body, size, sizeof(fib_rule_hdr), type);
            };
            found = found || (number(FRA_TABLE) == route.table &&
                              number(FRA_FWMARK) == route.mark && number(FRA_FWMASK) == route.mark);
          });
  return error == 0 ? absl::StatusOr<bool>(found) : Explain(error, "listing routing rules");
}

absl::StatusOr<bool> HasRoute(uint8_t family, const PolicyRoute& route) {
  RouteMessage message(RTM_GETROUTE, NLM_F_DUMP);
  message.body.rtm_family = family;
  bool found = false;
  const int error =
      Netlink(NETLINK_ROUTE)
          .Ask(message.header, [&](const nlmsghdr& header, const void* body, size_t size) {
            if (header.nlmsg_type != RTM_NEWROUTE || size < sizeof(rtmsg)) {
              return;
            }
            const auto& one = *static_cast<const rtmsg*>(body);
            found = found || (one.rtm_type == RTN_LOCAL && one.rtm_dst_len == 0 &&
                              Number(body, size, sizeof(rtmsg), RTA_TABLE) == route.table);
          });
  return error == 0 ? absl::StatusOr<bool>(found) : Explain(error, "listing routes");
}

std::string Hex(uint32_t number) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "0x%x", number);
  return text.data();
}

}  // namespace

absl::Status AddPolicyRoute(const PolicyRoute& route) {
  for (const uint8_t family : Families()) {
    RouteMessage to_lo = MakeRoute(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, family, route.table);
    if (const int error = Change(to_lo.header); error != 0 && error != EEXIST) {
      return Explain(error, "adding the local route of tproxy");
    }
    const absl::StatusOr<bool> there = HasRule(family, route);
    if (!there.ok()) {
      return there.status();
    }
    if (*there) {
      continue;
    }
    RuleMessage rule = MakeRule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, family, route.table);
    rule.Add(FRA_FWMARK, route.mark);
    rule.Add(FRA_FWMASK, route.mark);
    if (const int error = Change(rule.header); error != 0 && error != EEXIST) {
      return Explain(error, "adding the routing rule of tproxy");
    }
  }
  return absl::OkStatus();
}

absl::Status RemovePolicyRoute(uint32_t table) {
  constexpr int kAtMost = 16;  // with several marks, from earlier calls
  for (const uint8_t family : Families()) {
    for (int i = 0; i < kAtMost; ++i) {
      RuleMessage rule = MakeRule(RTM_DELRULE, 0, family, table);
      const int error = Change(rule.header);
      if (error == ENOENT || error == ESRCH) {
        break;
      }
      if (error != 0) {
        return Explain(error, "removing the routing rule of tproxy");
      }
    }
    RouteMessage to_lo = MakeRoute(RTM_DELROUTE, 0, family, table);
    if (const int error = Change(to_lo.header); error != 0 && error != ESRCH && error != ENOENT) {
      return Explain(error, "removing the local route of tproxy");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MissingOfPolicyRoute(const PolicyRoute& route) {
  std::vector<std::string> missing;
  for (const uint8_t family : Families()) {
    const std::string_view ip = family == AF_INET ? "ip" : "ip -6";
    const absl::StatusOr<bool> rule = HasRule(family, route);
    const absl::StatusOr<bool> to_lo = HasRoute(family, route);
    if (!rule.ok() || !to_lo.ok()) {
      return rule.ok() ? to_lo.status() : rule.status();
    }
    if (!*rule) {
      missing.push_back(base::StrCat(ip, " rule: fwmark ", Hex(route.mark), "/", Hex(route.mark),
                                     " lookup ", route.table));
    }
    if (!*to_lo) {
      missing.push_back(base::StrCat(ip, " route: local default dev lo table ", route.table));
    }
  }
  return missing;
}

}  // namespace postern::intercept
