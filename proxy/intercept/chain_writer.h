// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ip.h"
#include "proxy/intercept/rules.h"

namespace postern::intercept {

// The statements of one rule, in nft's JSON.
using Statements = std::vector<nlohmann::json>;
Statements operator+(Statements left, const Statements& right);

// The words that statements are made of. Pure.
namespace word {

using nlohmann::json;

json Match(std::string_view op, json left, json right);
json Meta(std::string_view key);
json Ct(std::string_view key);
json Field(std::string_view protocol, std::string_view field);
json Verdict(std::string_view name);
json Counter();
json Jump(std::string_view chain);
json Redirect(uint16_t port);
json Tproxy(uint16_t port);
json Set(json elements);
json Tcp();  // the protocol is TCP
// A new connection's first packet, op "==", or any other, "!=".
json FirstPacket(std::string_view op);
// The type of an address ("saddr" or "daddr") of the packet is, or is not, "local".
json Local(std::string_view op, std::string_view address);
// A mark ("meta" or "ct") has that bit; and the statement that sets it and leaves the others.
json HasBit(std::string_view mark, uint32_t bit);
json SetBit(std::string_view mark, uint32_t bit);
// A set of ports, sorted and merged: nft refuses sets whose intervals overlap.
json Ports(std::vector<PortRange> ranges);
// The ranges of one family, without those that another one covers.
json Ranges(const std::vector<base::Cidr>& cidrs, bool v4);
// Nothing when all ports are meant. `field`: "sport" or "dport".
Statements WithinPorts(std::string_view field, const std::vector<PortRange>& ports);

}  // namespace word

// How packets of somebody are known: one rule for each.
struct Who {
  std::string how;  // "by uid"
  nlohmann::json match;
};
std::vector<Who> TheProxy(const InterceptConfig& config);
std::vector<Who> TheExcluded(const InterceptConfig& config);
// Empty: everybody but the proxy.
std::vector<Who> TheApplication(const InterceptConfig& config);

// Collects the commands that make the chains and rules of one table, in order. The Leave functions
// write rules that end a chain's evaluation (return) for what they name; where there is nothing to
// name they write none.
class ChainWriter {
 public:
  explicit ChainWriter(const InterceptConfig& config)
      : config_(config), table_(TableName(config.name)) {}

  nlohmann::json Take() { return std::move(commands_); }

  void BaseChain(std::string_view name, std::string_view type, std::string_view hook, int priority);
  void PlainChain(std::string_view name);
  void Rule(std::string_view chain, std::string_view comment, const Statements& statements);

  void LeaveAllButTcp(std::string_view chain);
  // A middle packet of a connection that was open before the rules came can look new to conntrack;
  // only a SYN may be redirected, or that connection would break.
  void LeaveAllButNewTcp(std::string_view chain);
  void LeaveLoopback(std::string_view chain);
  // `first`: statements before the verdict.
  void LeaveWho(std::string_view chain, std::string_view comment, const std::vector<Who>& who,
                const Statements& first = {});
  void LeaveOwnPorts(std::string_view chain, std::string_view field);
  // `when`: further conditions.
  void LeavePorts(std::string_view chain, std::string_view comment, std::string_view field,
                  const std::vector<PortRange>& ports, const Statements& when = {});
  void LeaveInterfaces(std::string_view chain, std::string_view key);
  void LeaveRanges(std::string_view chain, std::string_view comment, std::string_view field,
                   const std::vector<base::Cidr>& cidrs, const Statements& when = {});

 private:
  const InterceptConfig& config_;
  std::string table_;
  nlohmann::json commands_ = nlohmann::json::array();
};

// The parts of the table.
void RenderProbe(ChainWriter& writer, const InterceptConfig& config);
void RenderInbound(ChainWriter& writer, const InterceptConfig& config);
void RenderOutbound(ChainWriter& writer, const InterceptConfig& config);
void RenderInboundFromThisHost(ChainWriter& writer, const InterceptConfig& config);
void RenderOwnWorkload(ChainWriter& writer, const InterceptConfig& config);
void RenderFilters(ChainWriter& writer, const InterceptConfig& config);
void RenderTproxy(ChainWriter& writer, const InterceptConfig& config);
void RenderClosed(ChainWriter& writer, const InterceptConfig& config);

}  // namespace postern::intercept
