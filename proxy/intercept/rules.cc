// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/rules.h"

#include <net/if.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::intercept {
namespace {

using nlohmann::json;

constexpr uint16_t kAdminPort = 15000;
constexpr uint16_t kMetricsPort = 15020;
constexpr size_t kMaxNameLength = 32;

json Match(std::string_view op, json left, json right) {
  return {{"match", {{"op", op}, {"left", std::move(left)}, {"right", std::move(right)}}}};
}
json Meta(std::string_view key) {
  return {{"meta", {{"key", key}}}};
}
json Field(std::string_view protocol, std::string_view field) {
  return {{"payload", {{"protocol", protocol}, {"field", field}}}};
}
json Verdict(std::string_view name) {
  return json::object({{std::string(name), nullptr}});
}
json Counter() {
  return Verdict("counter");
}
json Redirect(uint16_t port) {
  return {{"redirect", {{"port", port}}}};
}
json Set(json elements) {
  return {{"set", std::move(elements)}};
}

// The statements of one rule, before its verdict.
using Conditions = std::vector<json>;

Conditions operator+(Conditions left, const Conditions& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

const json& LocalDestination() {
  static const json left = {{"fib", {{"result", "type"}, {"flags", json::array({"daddr"})}}}};
  return left;
}

// Sorted and merged: nft refuses sets whose intervals overlap.
std::vector<PortRange> Merged(std::vector<PortRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<PortRange> merged;
  for (const PortRange& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

json Ports(const std::vector<PortRange>& ranges) {
  json elements = json::array();
  for (const PortRange& range : Merged(ranges)) {
    if (range.first == range.last) {
      elements.push_back(range.first);
    } else {
      elements.push_back({{"range", json::array({range.first, range.last})}});
    }
  }
  return Set(std::move(elements));
}

template <typename Id>
json Ids(const std::vector<Id>& ids) {
  return Set(json(std::set<Id>(ids.begin(), ids.end())));
}

// The ranges of one family, without those that another one covers.
json Ranges(const std::vector<base::Cidr>& cidrs, bool v4) {
  json elements = json::array();
  for (size_t i = 0; i < cidrs.size(); ++i) {
    const base::Cidr& cidr = cidrs[i];
    if (cidr.base().is_v4() != v4) {
      continue;
    }
    bool covered = false;
    for (size_t j = 0; j < cidrs.size(); ++j) {
      const base::Cidr& other = cidrs[j];
      const bool wider = other.prefix_length() < cidr.prefix_length() ||
                         (other.prefix_length() == cidr.prefix_length() && j < i);
      covered =
          covered || (j != i && wider && other.base().is_v4() == v4 && other.Contains(cidr.base()));
    }
    if (covered) {
      continue;
    }
    const std::string address = cidr.base().ToString();
    const int whole = v4 ? 32 : 128;
    if (cidr.prefix_length() == whole) {
      elements.push_back(address);
    } else {
      elements.push_back({{"prefix", {{"addr", address}, {"len", cidr.prefix_length()}}}});
    }
  }
  return elements;
}

json OwnPorts(const InterceptConfig& config) {
  std::vector<PortRange> ports;
  for (uint16_t port : PortsNeverTaken(config)) {
    ports.push_back({port, port});
  }
  return Ports(ports);
}

// Builds the list of nft commands, one method for each part of the table.
class Renderer {
 public:
  explicit Renderer(const InterceptConfig& config)
      : config_(config), table_(TableName(config.name)) {}

  json Commands() {
    if (config_.inbound) {
      RenderInbound();
    }
    if (config_.outbound) {
      RenderOutbound();
    }
    if (config_.inbound && HasAppIds()) {
      RenderInboundFromThisHost();
    }
    RenderFilters();
    return std::move(commands_);
  }

 private:
  bool HasAppIds() const { return !config_.app_uids.empty() || !config_.app_gids.empty(); }

  void BaseChain(std::string_view name, std::string_view type, std::string_view hook,
                 int priority) {
    commands_.push_back({{"add",
                          {{"chain",
                            {{"family", "inet"},
                             {"table", table_},
                             {"name", name},
                             {"type", type},
                             {"hook", hook},
                             {"prio", priority},
                             {"policy", "accept"}}}}}});
  }

  void PlainChain(std::string_view name) {
    commands_.push_back(
        {{"add", {{"chain", {{"family", "inet"}, {"table", table_}, {"name", name}}}}}});
  }

  void Rule(std::string_view chain, std::string_view comment, const Conditions& statements) {
    commands_.push_back({{"add",
                          {{"rule",
                            {{"family", "inet"},
                             {"table", table_},
                             {"chain", chain},
                             {"comment", comment},
                             {"expr", statements}}}}}});
  }

  // A middle packet of a connection that was open before the rules came can look new to conntrack;
  // only a SYN may be redirected, or that connection would break.
  void LeaveAllButNewTcp(std::string_view chain) {
    Rule(chain, "not TCP", {Match("!=", Meta("l4proto"), "tcp"), Verdict("return")});
    const json flags = {{"&", {Field("tcp", "flags"), json::array({"fin", "syn", "rst", "ack"})}}};
    Rule(chain, "not the first packet of a connection",
         {Match("!=", flags, "syn"), Verdict("return")});
  }

  void LeaveLoopback(std::string_view chain) {
    const json v4 = {{"prefix", {{"addr", "127.0.0.0"}, {"len", 8}}}};
    Rule(chain, "loopback, IPv4", {Match("==", Field("ip", "daddr"), v4), Verdict("return")});
    Rule(chain, "loopback, IPv6", {Match("==", Field("ip6", "daddr"), "::1"), Verdict("return")});
  }

  void LeaveIds(std::string_view chain, std::string_view comment, const std::vector<uid_t>& uids,
                const std::vector<gid_t>& gids) {
    if (!uids.empty()) {
      Rule(chain, base::StrCat(comment, ", by uid"),
           {Match("==", Meta("skuid"), Ids(uids)), Verdict("return")});
    }
    if (!gids.empty()) {
      Rule(chain, base::StrCat(comment, ", by gid"),
           {Match("==", Meta("skgid"), Ids(gids)), Verdict("return")});
    }
  }

  void LeaveProxy(std::string_view chain) {
    LeaveIds(chain, "loop guard", config_.proxy_uids, config_.proxy_gids);
    if (config_.proxy_mark != 0) {
      Rule(chain, "loop guard, by mark",
           {Match("==", Meta("mark"), config_.proxy_mark), Verdict("return")});
    }
  }

  void LeavePorts(std::string_view chain, const std::vector<PortRange>& excluded) {
    Rule(chain, "the proxy's own ports",
         {Match("==", Field("tcp", "dport"), OwnPorts(config_)), Verdict("return")});
    if (excluded.empty()) {
      return;
    }
    Rule(chain, "excluded ports",
         {Match("==", Field("tcp", "dport"), Ports(excluded)), Verdict("return")});
  }

  void LeaveInterfaces(std::string_view chain, std::string_view key) {
    if (config_.exclude_interfaces.empty()) {
      return;
    }
    const auto& names = config_.exclude_interfaces;
    const json set = json(std::set<std::string>(names.begin(), names.end()));
    Rule(chain, "excluded interfaces", {Match("==", Meta(key), Set(set)), Verdict("return")});
  }

  void LeaveRanges(std::string_view chain, std::string_view comment, std::string_view field,
                   const std::vector<base::Cidr>& cidrs) {
    for (bool v4 : {true, false}) {
      const json ranges = Ranges(cidrs, v4);
      if (ranges.empty()) {
        continue;
      }
      Rule(chain, base::StrCat(comment, v4 ? ", IPv4" : ", IPv6"),
           {Match("==", Field(v4 ? "ip" : "ip6", field), Set(ranges)), Verdict("return")});
    }
  }

  // Nothing when all ports are meant.
  static Conditions DestinationPorts(const std::vector<PortRange>& ports) {
    if (ports.empty()) {
      return {};
    }
    return {Match("==", Field("tcp", "dport"), Ports(ports))};
  }

  void RedirectToInbound(std::string_view chain, std::string_view comment) {
    // The protocol is named again: a redirect to a port needs it, also where all ports are meant.
    const Conditions tcp = {Match("==", Meta("l4proto"), "tcp")};
    Rule(chain, comment,
         tcp + DestinationPorts(config_.inbound_ports) +
             Conditions{Counter(), Redirect(config_.inbound_port)});
  }

  // What comes from outside to an address of this host.
  void RenderInbound() {
    constexpr std::string_view kChain = "inbound";
    BaseChain(kChain, "nat", "prerouting", -100);
    LeaveAllButNewTcp(kChain);
    LeaveLoopback(kChain);
    LeaveInterfaces(kChain, "iifname");
    Rule(kChain, "only passing through",
         {Match("!=", LocalDestination(), "local"), Verdict("return")});
    LeavePorts(kChain, config_.exclude_inbound_ports);
    LeaveRanges(kChain, "excluded sources", "saddr", config_.exclude_inbound_cidrs);
    RedirectToInbound(kChain, kInboundRedirectComment);
  }

  // What the application opens.
  void RenderOutbound() {
    constexpr std::string_view kChain = "outbound";
    BaseChain(kChain, "nat", "output", -100);
    LeaveAllButNewTcp(kChain);
    LeaveProxy(kChain);
    LeaveLoopback(kChain);
    LeaveInterfaces(kChain, "oifname");
    LeavePorts(kChain, config_.exclude_outbound_ports);
    LeaveIds(kChain, "excluded", config_.exclude_uids, config_.exclude_gids);
    constexpr std::string_view kApp = "outbound_app";
    PlainChain(kApp);
    const json jump = {{"jump", {{"target", kApp}}}};
    if (!config_.app_uids.empty()) {
      Rule(kChain, "the application, by uid",
           {Match("==", Meta("skuid"), Ids(config_.app_uids)), jump});
    }
    if (!config_.app_gids.empty()) {
      Rule(kChain, "the application, by gid",
           {Match("==", Meta("skgid"), Ids(config_.app_gids)), jump});
    }
    if (!HasAppIds()) {
      Rule(kChain, "everybody is the application", {jump});
    }
    RenderOutboundApp(kApp);
  }

  void RenderOutboundApp(std::string_view chain) {
    if (config_.inbound) {
      const Conditions local = {Match("==", LocalDestination(), "local")};
      Rule(chain, "the application calls itself",
           local + DestinationPorts(config_.inbound_ports) + Conditions{Verdict("return")});
    }
    LeaveRanges(chain, "excluded destinations", "daddr", config_.exclude_outbound_cidrs);
    const Conditions to =
        Conditions{Match("==", Meta("l4proto"), "tcp")} + DestinationPorts(config_.outbound_ports);
    const Conditions redirect = {Counter(), Redirect(config_.outbound_port)};
    if (config_.outbound_cidrs.empty()) {
      Rule(chain, kOutboundRedirectComment, to + redirect);
      return;
    }
    for (bool v4 : {true, false}) {
      const json ranges = Ranges(config_.outbound_cidrs, v4);
      if (ranges.empty()) {
        continue;
      }
      const Conditions within = {Match("==", Field(v4 ? "ip" : "ip6", "daddr"), Set(ranges))};
      Rule(chain, kOutboundRedirectComment, within + to + redirect);
    }
  }

  // What others on this host open to the workload's own addresses. It never passes prerouting as
  // a new connection; and it comes after every proxy's outbound chain, so that an application whose
  // proxy is on this host too goes through its own proxy first.
  void RenderInboundFromThisHost() {
    constexpr std::string_view kChain = "inbound_from_this_host";
    BaseChain(kChain, "nat", "output", -90);
    LeaveAllButNewTcp(kChain);
    LeaveProxy(kChain);
    LeaveLoopback(kChain);
    LeaveIds(kChain, "the application calls itself", config_.app_uids, config_.app_gids);
    LeaveIds(kChain, "excluded", config_.exclude_uids, config_.exclude_gids);
    Rule(kChain, "goes to another host",
         {Match("!=", LocalDestination(), "local"), Verdict("return")});
    LeavePorts(kChain, config_.exclude_inbound_ports);
    RedirectToInbound(kChain, kLocalRedirectComment);
  }

  // Packets that conntrack calls invalid are not translated: they would reach the application's
  // socket, or leave with the proxy's port, and the other end would answer with a reset.
  void RenderFilters() {
    const json invalid = Match("in", {{"ct", {{"key", "state"}}}}, "invalid");
    const json tcp = Match("==", Meta("l4proto"), "tcp");
    if (config_.inbound) {
      constexpr std::string_view kChain = "filter_in";
      BaseChain(kChain, "filter", "input", 0);
      LeaveInterfaces(kChain, "iifname");
      LeavePorts(kChain, config_.exclude_inbound_ports);
      Rule(kChain, "not translatable",
           Conditions{tcp} + DestinationPorts(config_.inbound_ports) +
               Conditions{invalid, Counter(), Verdict("drop")});
    }
    constexpr std::string_view kChain = "filter_out";
    BaseChain(kChain, "filter", "output", 0);
    const json ports = Ports({{config_.inbound_port, config_.inbound_port},
                              {config_.outbound_port, config_.outbound_port}});
    Rule(kChain, "not translatable",
         {Match("==", Field("tcp", "sport"), ports), invalid, Counter(), Verdict("drop")});
    if (!config_.outbound) {
      return;
    }
    LeaveLoopback(kChain);
    LeaveProxy(kChain);
    Rule(kChain, kUdpComment, {Match("==", Meta("l4proto"), "udp"), Counter()});
  }

  const InterceptConfig& config_;
  std::string table_;
  json commands_ = json::array();
};

std::optional<uint16_t> ParsePort(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) {
    return std::nullopt;
  }
  return port;
}

absl::Status CheckName(const std::string& name) {
  const bool fits = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) ||
           absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '_';
  });
  if (fits && name.size() <= kMaxNameLength) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      base::StrCat("--name '", base::Printable(name),
                   "': up to 32 characters of a-z, 0-9 and _ name a second proxy's rules"));
}

// Commands that leave no table behind, whatever was there: deleting needs the table to exist.
json Removal(const std::string& table) {
  const json named = {{"table", {{"family", "inet"}, {"name", table}}}};
  return json::array({{{"add", named}}, {{"delete", named}}});
}

// Table, chains and rules as nft (or we, in an "add" command) describe them.
void ReadObject(const json& object, const std::string& table, TableState* state) {
  const auto chain = object.find("chain");
  if (chain != object.end() && chain->value("table", "") == table) {
    state->chains.push_back(chain->value("name", ""));
  }
  const auto rule = object.find("rule");
  if (rule == object.end() || rule->value("table", "") != table) {
    return;
  }
  RuleState found{rule->value("chain", ""), rule->value("comment", ""), false, 0};
  for (const json& statement : rule->value("expr", json::array())) {
    const auto counter = statement.find("counter");
    if (counter == statement.end()) {
      continue;
    }
    found.counted = true;
    if (counter->is_object()) {
      found.packets = counter->value("packets", uint64_t{0});
    }
  }
  state->rules.push_back(std::move(found));
}

}  // namespace

absl::StatusOr<PortRange> PortRange::Parse(std::string_view text) {
  const size_t dash = text.find('-');
  const std::optional<uint16_t> first = ParsePort(text.substr(0, dash));
  const std::optional<uint16_t> last =
      dash == std::string_view::npos ? first : ParsePort(text.substr(dash + 1));
  if (!first || !last || *last < *first) {
    return absl::InvalidArgumentError(base::StrCat(
        "'", base::Printable(text), "' is no port (1 to 65535) and no range like 8000-8099"));
  }
  return PortRange{*first, *last};
}

std::vector<uint16_t> PortsNeverTaken(const InterceptConfig& config) {
  std::vector<uint16_t> ports = config.own_ports;
  ports.insert(ports.end(), {config.inbound_port, config.outbound_port, kAdminPort, kMetricsPort});
  return ports;
}

std::string TableName(const std::string& name) {
  return name.empty() ? "postern" : base::StrCat("postern_", name);
}

absl::Status CheckConfig(const InterceptConfig& config) {
  if (absl::Status status = CheckName(config.name); !status.ok()) {
    return status;
  }
  if (config.mode == RuleMode::kTproxy) {
    return absl::UnimplementedError(
        "--mode tproxy is not there yet; --mode redirect does the same but for keeping the "
        "client's "
        "address");
  }
  if (!config.inbound && !config.outbound) {
    return absl::InvalidArgumentError(
        "--no-inbound and --no-outbound together leave nothing to intercept; give one of them");
  }
  if (config.inbound_port == 0 || config.outbound_port == 0 ||
      config.inbound_port == config.outbound_port) {
    return absl::InvalidArgumentError(
        "--inbound-port and --outbound-port must be two different ports, not 0");
  }
  const bool guarded =
      !config.proxy_uids.empty() || !config.proxy_gids.empty() || config.proxy_mark != 0;
  if (!guarded) {
    return absl::InvalidArgumentError(
        "nothing tells the proxy's own connections from the application's, so they would loop: "
        "give "
        "--proxy-uid with the user that runs postern-proxy, or --proxy-mark with its --mark");
  }
  for (const std::string& name : config.exclude_interfaces) {
    if (name.empty() || name.size() >= IF_NAMESIZE ||
        name.find_first_of("/\" \t\n*") != name.npos) {
      return absl::InvalidArgumentError(base::StrCat("--exclude-interface '", base::Printable(name),
                                                     "' is no interface name (at most 15 bytes)"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RenderUp(const InterceptConfig& config) {
  if (absl::Status status = CheckConfig(config); !status.ok()) {
    return status;
  }
  const std::string table = TableName(config.name);
  json commands = Removal(table);
  commands.push_back({{"add", {{"table", {{"family", "inet"}, {"name", table}}}}}});
  for (json& command : Renderer(config).Commands()) {
    commands.push_back(std::move(command));
  }
  return json({{"nftables", std::move(commands)}}).dump();
}

absl::StatusOr<std::string> RenderDown(const std::string& name) {
  if (absl::Status status = CheckName(name); !status.ok()) {
    return status;
  }
  return json({{"nftables", Removal(TableName(name))}}).dump();
}

absl::StatusOr<TableState> ParseTable(std::string_view nft_json, const std::string& name) {
  const json document = json::parse(nft_json, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("nftables") || !document["nftables"].is_array()) {
    return absl::InvalidArgumentError("this is not what `nft -j` prints");
  }
  TableState state;
  const std::string table = TableName(name);
  for (const json& entry : document["nftables"]) {
    if (!entry.is_object()) {
      continue;
    }
    const auto add = entry.find("add");
    ReadObject(add != entry.end() && add->is_object() ? *add : entry, table, &state);
  }
  return state;
}

absl::Status CompareTables(const TableState& wanted, const TableState& found) {
  for (const std::string& chain : wanted.chains) {
    if (std::count(found.chains.begin(), found.chains.end(), chain) != 1) {
      return absl::FailedPreconditionError(base::StrCat("chain '", chain, "' is missing"));
    }
    std::vector<std::string> want;
    std::vector<std::string> have;
    for (const RuleState& rule : wanted.rules) {
      if (rule.chain == chain) {
        want.push_back(rule.comment);
      }
    }
    for (const RuleState& rule : found.rules) {
      if (rule.chain == chain) {
        have.push_back(rule.comment);
      }
    }
    for (size_t i = 0; i < want.size() || i < have.size(); ++i) {
      if (i < want.size() && i < have.size() && want[i] == have[i]) {
        continue;
      }
      return absl::FailedPreconditionError(base::StrCat(
          "chain '", chain, "', rule ", i + 1, ": '", i < have.size() ? have[i] : "nothing",
          "' stands where '", i < want.size() ? want[i] : "nothing", "' belongs"));
    }
  }
  if (found.chains.size() != wanted.chains.size()) {
    return absl::FailedPreconditionError("the table holds chains that Postern did not make");
  }
  return absl::OkStatus();
}

}  // namespace postern::intercept
