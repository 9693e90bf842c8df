// SPDX-License-Identifier: Apache-2.0
// The rules that take connections, and the filters of what cannot be taken.
#include <array>
#include <string>

#include "common/base/strings.h"
#include "proxy/intercept/chain_writer.h"

namespace postern::intercept {
namespace {

using nlohmann::json;
using word::Counter;
using word::Local;
using word::Match;
using word::Meta;
using word::Verdict;
using word::WithinPorts;

constexpr int kTranslation = -100;  // where NAT of destinations has its place
constexpr int kAfterTranslation = -90;
constexpr int kFilter = 0;

void RedirectToInbound(ChainWriter& writer, const InterceptConfig& config, std::string_view chain,
                       std::string_view comment) {
  // The protocol is named again: a redirect to a port needs it, also where all ports are meant.
  writer.Rule(chain, comment,
              Statements{word::Tcp()} + WithinPorts("dport", config.inbound_ports) +
                  Statements{Counter(), word::Redirect(config.inbound_port)});
}

// The proxy itself dials these two, and sees by what becomes of it whether rules are in force. They
// are loopback, so that without rules nothing leaves the host; and the proxy's own, so that nobody
// else is taken.
void RedirectProbes(ChainWriter& writer, const InterceptConfig& config, std::string_view chain) {
  const uint16_t port = ProbePort(config.outbound_port);
  const std::array<Statements, 2> targets = {
      Statements{Match("==", word::Field("ip", "daddr"), "127.0.0.1")},
      Statements{Match("==", word::Field("ip6", "daddr"), "::1")}};
  for (const Who& proxy : TheProxy(config)) {
    for (const Statements& target : targets) {
      writer.Rule(chain, base::StrCat(kProbeComment, ", ", proxy.how),
                  target + Statements{Match("==", word::Field("tcp", "dport"), port), proxy.match,
                                      word::Redirect(config.outbound_port)});
    }
  }
}

void RenderOutboundApp(ChainWriter& writer, const InterceptConfig& config) {
  if (config.inbound) {
    writer.Rule(kOutboundAppChain, "the application calls itself",
                Statements{Local("==", "daddr")} + WithinPorts("dport", config.inbound_ports) +
                    Statements{Verdict("return")});
  }
  writer.LeaveRanges(kOutboundAppChain, "excluded destinations", "daddr",
                     config.exclude_outbound_cidrs);
  const Statements to = Statements{word::Tcp()} + WithinPorts("dport", config.outbound_ports);
  const Statements redirect = {Counter(), word::Redirect(config.outbound_port)};
  if (config.outbound_cidrs.empty()) {
    writer.Rule(kOutboundAppChain, kOutboundRedirectComment, to + redirect);
    return;
  }
  for (const bool v4 : {true, false}) {
    const json ranges = word::Ranges(config.outbound_cidrs, v4);
    if (ranges.empty()) {
      continue;
    }
    const Statements within = {
        Match("==", word::Field(v4 ? "ip" : "ip6", "daddr"), word::Set(ranges))};
    writer.Rule(kOutboundAppChain, kOutboundRedirectComment, within + to + redirect);
  }
}

}  // namespace

// Where outbound is not taken the proxy still wants to know whether the table stands.
void RenderProbe(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "probe";
  writer.BaseChain(kChain, "nat", "output", kTranslation);
  writer.LeaveAllButNewTcp(kChain);
  RedirectProbes(writer, config, kChain);
}

// What comes from outside to an address of this host.
void RenderInbound(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "inbound";
  writer.BaseChain(kChain, "nat", "prerouting", kTranslation);
  writer.LeaveAllButNewTcp(kChain);
  writer.LeaveLoopback(kChain);
  writer.LeaveInterfaces(kChain, "iifname");
  writer.Rule(kChain, "only passing through", {Local("!=", "daddr"), Verdict("return")});
  writer.LeaveOwnPorts(kChain, "dport");
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_inbound_ports);
  writer.LeaveRanges(kChain, "excluded sources", "saddr", config.exclude_inbound_cidrs);
  RedirectToInbound(writer, config, kChain, kInboundRedirectComment);
}

// What the application opens.
void RenderOutbound(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "outbound";
  writer.BaseChain(kChain, "nat", "output", kTranslation);
  writer.LeaveAllButNewTcp(kChain);
  RedirectProbes(writer, config, kChain);
  writer.LeaveWho(kChain, "loop guard", TheProxy(config));
  writer.LeaveLoopback(kChain);
  writer.LeaveInterfaces(kChain, "oifname");
  writer.LeaveOwnPorts(kChain, "dport");
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_outbound_ports);
  writer.LeaveWho(kChain, "excluded", TheExcluded(config));
  writer.PlainChain(kOutboundAppChain);
  const std::vector<Who> application = TheApplication(config);
  for (const Who& app : application) {
    writer.Rule(kChain, base::StrCat("the application, ", app.how),
                {app.match, word::Jump(kOutboundAppChain)});
  }
  if (application.empty()) {
    writer.Rule(kChain, "everybody is the application", {word::Jump(kOutboundAppChain)});
  }
  RenderOutboundApp(writer, config);
}

// What others on this host open to the workload's own addresses. It never passes prerouting as a
// new connection; and it comes after every proxy's outbound chain, so that an application whose
// proxy is on this host too goes through its own proxy first.
void RenderInboundFromThisHost(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "inbound_from_this_host";
  writer.BaseChain(kChain, "nat", "output", kAfterTranslation);
  writer.LeaveAllButNewTcp(kChain);
  writer.LeaveWho(kChain, "loop guard", TheProxy(config));
  writer.LeaveLoopback(kChain);
  writer.LeaveWho(kChain, "the application calls itself", TheApplication(config));
  writer.LeaveWho(kChain, "excluded", TheExcluded(config));
  writer.Rule(kChain, "goes to another host", {Local("!=", "daddr"), Verdict("return")});
  writer.LeaveOwnPorts(kChain, "dport");
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_inbound_ports);
  RedirectToInbound(writer, config, kChain, kLocalRedirectComment);
}

// A service that the application dials may lead to the application itself. Its proxy says so of the
// connection, which then comes to it like one of any other client; what it dials when it takes a
// client in, it says nothing of.
void RenderOwnWorkload(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "own_workload";
  writer.BaseChain(kChain, "nat", "output", kTranslation);
  writer.LeaveAllButNewTcp(kChain);
  writer.Rule(
      kChain, "another connection",
      {Match("!=", Meta("priority"), base::StrCat("0:", kOwnWorkloadPriority)), Verdict("return")});
  writer.LeaveLoopback(kChain);
  writer.Rule(kChain, "goes to another host", {Local("!=", "daddr"), Verdict("return")});
  writer.LeaveOwnPorts(kChain, "dport");
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_inbound_ports);
  writer.LeaveRanges(kChain, "excluded sources", "saddr", config.exclude_inbound_cidrs);
  for (const Who& proxy : TheProxy(config)) {
    writer.Rule(kChain, base::StrCat(kOwnWorkloadComment, ", ", proxy.how),
                Statements{word::Tcp()} + WithinPorts("dport", config.inbound_ports) +
                    Statements{proxy.match, Counter(), word::Redirect(config.inbound_port)});
  }
}

// Packets that conntrack calls invalid are not translated: they would reach the application's
// socket, or leave with the proxy's port, and the other end would answer with a reset.
void RenderFilters(ChainWriter& writer, const InterceptConfig& config) {
  const json invalid = Match("in", word::Ct("state"), "invalid");
  if (config.inbound) {
    constexpr std::string_view kChain = "filter_in";
    writer.BaseChain(kChain, "filter", "input", kFilter);
    writer.LeaveInterfaces(kChain, "iifname");
    writer.LeaveOwnPorts(kChain, "dport");
    writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_inbound_ports);
    writer.Rule(kChain, "not translatable",
                Statements{word::Tcp()} + WithinPorts("dport", config.inbound_ports) +
                    Statements{invalid, Counter(), Verdict("drop")});
  }
  constexpr std::string_view kChain = "filter_out";
  writer.BaseChain(kChain, "filter", "output", kFilter);
  const std::vector<PortRange> ports = {{config.inbound_port, config.inbound_port},
                                        {config.outbound_port, config.outbound_port}};
  writer.Rule(kChain, "not translatable",
              WithinPorts("sport", ports) + Statements{invalid, Counter(), Verdict("drop")});
  if (!config.outbound) {
    return;
  }
  writer.LeaveLoopback(kChain);
  writer.LeaveWho(kChain, "loop guard", TheProxy(config));
  writer.Rule(kChain, kUdpComment, {Match("==", Meta("l4proto"), "udp"), Counter()});
}

}  // namespace postern::intercept
