// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/rules.h"

#include <net/if.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/intercept/chain_writer.h"

namespace postern::intercept {
namespace {

using nlohmann::json;

constexpr uint16_t kAdminPort = 15000;
constexpr uint16_t kMetricsPort = 15020;
constexpr size_t kMaxNameLength = 32;

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

// Each of the bits stands for one thing.
absl::Status CheckMarks(const InterceptConfig& config) {
  if (std::popcount(config.pass_mark) != 1 || std::popcount(config.return_mark) != 1 ||
      config.pass_mark == config.return_mark) {
    return absl::InvalidArgumentError(
        "--pass-mark and --return-mark are one bit each, and not the same one");
  }
  if (config.mode == RuleMode::kTproxy && (config.proxy_mark & config.return_mark) != 0) {
    return absl::InvalidArgumentError(
        "--proxy-mark has the bit of --return-mark, so the proxy's own connections would be routed "
        "back to it; give another --return-mark");
  }
  return absl::OkStatus();
}

// The chains and rules, without the table.
json Chains(const InterceptConfig& config) {
  ChainWriter writer(config);
  if (config.inbound && config.mode == RuleMode::kTproxy) {
    RenderTproxy(writer, config);
  } else if (config.inbound) {
    RenderInbound(writer, config);
  }
  if (config.outbound) {
    RenderOutbound(writer, config);
  } else {
    RenderProbe(writer, config);
  }
  if (config.inbound && !TheApplication(config).empty()) {
    RenderInboundFromThisHost(writer, config);
  }
  if (config.inbound) {
    RenderOwnWorkload(writer, config);
  }
  RenderFilters(writer, config);
  if (config.fail_closed) {
    RenderClosed(writer, config);
  }
  return writer.Take();
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
    if (const auto tproxy = statement.find("tproxy"); tproxy != statement.end()) {
      state->tproxy_port = tproxy->value("port", uint16_t{0});
    }
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

uint16_t ProbePort(uint16_t outbound_port) {
  constexpr uint16_t kDistance = 5000;
  const bool room = outbound_port <= UINT16_MAX - kDistance;
  return static_cast<uint16_t>(room ? outbound_port + kDistance : outbound_port - kDistance);
}

std::string TableName(const std::string& name) {
  return name.empty() ? "postern" : base::StrCat("postern_", name);
}

absl::Status CheckConfig(const InterceptConfig& config) {
  if (absl::Status status = CheckName(config.name); !status.ok()) {
    return status;
  }
  if (config.mode == RuleMode::kTproxy && !config.inbound) {
    return absl::InvalidArgumentError(
        "--mode tproxy is about inbound connections; leave out --no-inbound, or give --mode "
        "redirect");
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
        "give --proxy-uid with the user that runs postern-proxy, or --proxy-mark with its --mark");
  }
  if (absl::Status status = CheckMarks(config); !status.ok()) {
    return status;
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
  for (json& command : Chains(config)) {
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
