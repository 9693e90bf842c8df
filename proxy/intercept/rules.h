// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "proxy/intercept/cgroup.h"

namespace postern::intercept {

// Ports first to last, both included. A value.
struct PortRange {
  uint16_t first = 0;
  uint16_t last = 0;

  // "443" or "8000-8099". InvalidArgument: no number, 0, or backwards.
  static absl::StatusOr<PortRange> Parse(std::string_view text);
  auto operator<=>(const PortRange&) const = default;
};

enum class RuleMode : uint8_t {
  kRedirect,
  kTproxy,  // inbound: the application sees the client's address
};

// What one proxy takes over on its machine or in its network namespace. A value. Empty lists of
// "what is taken" mean everything; what is excluded is left out of that.
struct InterceptConfig {
  RuleMode mode = RuleMode::kRedirect;
  std::string name;  // of a second proxy: the table is postern_NAME; empty: postern
  bool inbound = true;
  bool outbound = true;

  // Where the proxy listens. These ports, 15000 and 15020 are never taken.
  uint16_t inbound_port = 15006;
  uint16_t outbound_port = 15001;
  std::vector<uint16_t> own_ports;

  // Who is the proxy: its connections are let through, or they would loop. A packet is the proxy's
  // when any of these fits. Needed for outbound.
  std::vector<uid_t> proxy_uids;
  std::vector<gid_t> proxy_gids;
  uint32_t proxy_mark = 0;  // SO_MARK; 0: none

  // Whose connections are the application's. Both empty: everybody's but the proxy's. When given,
  // connections of everyone else on this host to the workload's ports are inbound ones: this is how
  // the proxy of a second workload on the host is caught.
  std::vector<uid_t> app_uids;
  std::vector<gid_t> app_gids;
  std::vector<uid_t> exclude_uids;
  std::vector<gid_t> exclude_gids;
  std::vector<Cgroup> app_cgroups;
  std::vector<Cgroup> exclude_cgroups;

  std::vector<PortRange> inbound_ports;
  std::vector<PortRange> outbound_ports;
  std::vector<PortRange> exclude_inbound_ports;
  std::vector<PortRange> exclude_outbound_ports;
  std::vector<base::Cidr> outbound_cidrs;          // destinations
  std::vector<base::Cidr> exclude_outbound_cidrs;  // destinations
  std::vector<base::Cidr> exclude_inbound_cidrs;   // sources
  std::vector<std::string> exclude_interfaces;

  // What would be taken and has not gone through the proxy is dropped. Inbound with tproxy always
  // is.
  bool fail_closed = false;

  // One bit each, so that marks of others live beside them. On connections (conntrack): may pass
  // although a packet of it has no socket any more.
  uint32_t pass_mark = 0x2000;
  // Tproxy: on connections from a client's address to the application, and on the packets of their
  // answers, which policy_route.h leads to this host. The routing table has the number of the
  // inbound port.
  uint32_t return_mark = 0x1000;
};

// Ports of the proxy itself, which no rule takes.
std::vector<uint16_t> PortsNeverTaken(const InterceptConfig& config);

// Where the proxy of that outbound port dials its own host (127.0.0.1, ::1) to see that rules are
// in force: they lead its own connections to this port back to the outbound port.
uint16_t ProbePort(uint16_t outbound_port);

// The SO_PRIORITY with which the proxy dials its own workload for an application, which needs no
// privilege. Rules lead such a connection to the inbound port, as anybody else's; the proxy's other
// connections to its own host they leave alone.
inline constexpr uint8_t kOwnWorkloadPriority = 5;

// The table that holds the rules: "postern" or "postern_NAME".
std::string TableName(const std::string& name);

// InvalidArgument: a contradiction or a missing part, named by its flag with the mend. Pure.
absl::Status CheckConfig(const InterceptConfig& config);

// The rules as input of `nft -j -f -`: one transaction that replaces the table, whether it is there
// or not. Checks the config first. Pure.
absl::StatusOr<std::string> RenderUp(const InterceptConfig& config);
// The transaction that removes the table, whether it is there or not. InvalidArgument: a bad name.
absl::StatusOr<std::string> RenderDown(const std::string& name);

// One rule as the kernel holds it: what Postern wrote beside it, and what it counted.
struct RuleState {
  std::string chain;
  std::string comment;
  bool counted = false;
  uint64_t packets = 0;
  auto operator<=>(const RuleState&) const = default;
};
struct TableState {
  std::vector<std::string> chains;
  std::vector<RuleState> rules;  // in the order of evaluation within a chain
  uint16_t tproxy_port = 0;      // where a tproxy statement leads to; 0: there is none
};

// Reads what `nft -j list table` (or our own rendering) says of the table of that name.
// InvalidArgument: not nft's JSON.
absl::StatusOr<TableState> ParseTable(std::string_view nft_json, const std::string& name);

// Compares what should be there with what is. FailedPrecondition names the first chain or rule that
// is missing, foreign or out of order. Pure.
absl::Status CompareTables(const TableState& wanted, const TableState& found);

// Comments that others look for.
inline constexpr std::string_view kOutboundRedirectComment = "outbound: to the proxy";
inline constexpr std::string_view kInboundRedirectComment = "inbound: to the proxy";
inline constexpr std::string_view kLocalRedirectComment = "inbound from this host: to the proxy";
inline constexpr std::string_view kOwnWorkloadComment = "the proxy dials its own workload";
inline constexpr std::string_view kUdpComment = "outbound UDP: counted, not carried";
inline constexpr std::string_view kProbeComment = "the proxy sees that rules are in force";
inline constexpr std::string_view kBackComment = "answers to a client: back to the proxy";
inline constexpr std::string_view kClosedInboundComment = "closed: inbound past the proxy";
inline constexpr std::string_view kClosedOutboundComment = "closed: outbound past the proxy";

inline constexpr std::string_view kOutboundAppChain = "outbound_app";

}  // namespace postern::intercept
