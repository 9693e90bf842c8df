// SPDX-License-Identifier: Apache-2.0
// Inbound connections as they are: the proxy accepts at the application's address and dials it from
// the client's. What the application answers to that address must come back to the proxy, which is
// what the mark and the routing rule (policy_route.h) are for.
#include "common/base/strings.h"
#include "proxy/intercept/chain_writer.h"

namespace postern::intercept {
namespace {

using word::Counter;
using word::Local;
using word::Match;
using word::Verdict;

constexpr int kMangle = -150;  // behind conntrack (-200), before NAT (-100)

// What is neither taken nor dropped, although it is no excluded port or source: answers to
// connections that this host has opened.
void LeaveAnswers(ChainWriter& writer, const InterceptConfig& config, std::string_view chain) {
  const Statements later = {word::FirstPacket("!=")};
  writer.LeavePorts(chain, "answers of excluded ports", "sport", config.exclude_outbound_ports,
                    later);
  writer.LeaveRanges(chain, "answers of excluded destinations", "saddr",
                     config.exclude_outbound_cidrs, later);
  writer.Rule(chain, "answers to this host",
              {Match("==", word::Ct("direction"), "reply"), Verdict("return")});
}

// Packets of a connection that the proxy has are its socket's; where nobody is at the port the
// tproxy statement takes nothing, and the packet must not go on to the application.
void RenderIn(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "tproxy_in";
  writer.BaseChain(kChain, "filter", "prerouting", kMangle);
  writer.LeaveAllButTcp(kChain);
  writer.Rule(kChain, "from this host",
              {Match("==", word::Meta("iifname"), "lo"), Verdict("return")});
  writer.LeaveInterfaces(kChain, "iifname");
  writer.Rule(kChain, "only passing through", {Local("!=", "daddr"), Verdict("return")});
  writer.LeaveOwnPorts(kChain, "dport");
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_inbound_ports);
  writer.LeaveRanges(kChain, "excluded sources", "saddr", config.exclude_inbound_cidrs);
  LeaveAnswers(writer, config, kChain);
  const Statements taken =
      Statements{word::Tcp()} + word::WithinPorts("dport", config.inbound_ports);
  writer.Rule(kChain, kInboundRedirectComment,
              taken + Statements{Counter(), word::Tproxy(config.inbound_port), Verdict("accept")});
  writer.Rule(kChain, kClosedInboundComment, taken + Statements{Counter(), Verdict("drop")});
}

// A change of the mark in a chain of this type looks the route up again.
void RenderBack(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "tproxy_back";
  writer.BaseChain(kChain, "route", "output", kMangle);
  writer.LeaveAllButTcp(kChain);
  for (const Who& proxy : TheProxy(config)) {
    writer.Rule(kChain, base::StrCat("the proxy dials from a client's address, ", proxy.how),
                {proxy.match, Local("!=", "saddr"), Local("==", "daddr"),
                 word::SetBit("ct", config.return_mark)});
  }
  writer.Rule(kChain, kBackComment,
              {Match("==", word::Ct("direction"), "reply"), word::HasBit("ct", config.return_mark),
               Counter(), word::SetBit("meta", config.return_mark)});
}

}  // namespace

void RenderTproxy(ChainWriter& writer, const InterceptConfig& config) {
  RenderIn(writer, config);
  RenderBack(writer, config);
}

}  // namespace postern::intercept
