// SPDX-License-Identifier: Apache-2.0
// --fail-closed: what the rules would take and what has not gone through the proxy is dropped on
// its way out and in, whatever the reason: the proxy is down and a connection from before the rules
// goes on, conntrack has lost a connection, somebody else's NAT came first.
#include "common/base/strings.h"
#include "proxy/intercept/chain_writer.h"

namespace postern::intercept {
namespace {

using word::Counter;
using word::Local;
using word::Match;
using word::Verdict;
using word::WithinPorts;

constexpr int kAfterFilters = 10;  // NAT has been done

Statements Later() {
  return {word::FirstPacket("!=")};
}

Statements Drop() {
  return {Counter(), Verdict("drop")};
}

Statements Answers() {
  return {Match("==", word::Ct("direction"), "reply")};
}

// The kernel speaks for a socket that its process has closed, and then the packet has no user. So
// the connection is remembered as one that may pass.
void LeaveAndRemember(ChainWriter& writer, const InterceptConfig& config, std::string_view chain,
                      std::string_view comment, const std::vector<Who>& who) {
  writer.LeaveWho(chain, comment, who, {word::SetBit("ct", config.pass_mark)});
}

void LeaveRemembered(ChainWriter& writer, const InterceptConfig& config, std::string_view chain) {
  writer.Rule(chain, "connections that may pass",
              {word::HasBit("ct", config.pass_mark), Verdict("return")});
}

// Answers to connections that came in. Those through the proxy have left already: they come from
// its port.
void RenderAnswersOut(ChainWriter& writer, const InterceptConfig& config, std::string_view chain) {
  writer.LeavePorts(chain, "answers of excluded ports", "sport", config.exclude_inbound_ports,
                    Later());
  writer.LeaveRanges(chain, "answers to excluded sources", "daddr", config.exclude_inbound_cidrs,
                     Later());
  if (config.inbound) {
    writer.Rule(chain, kClosedInboundComment,
                Answers() + WithinPorts("sport", config.inbound_ports) + Drop());
  }
  writer.Rule(chain, "answers", Answers() + Statements{Verdict("return")});
}

void RenderApplicationOut(ChainWriter& writer, const InterceptConfig& config,
                          std::string_view chain) {
  constexpr std::string_view kApp = "closed_app";
  writer.PlainChain(kApp);
  const std::vector<Who> application = TheApplication(config);
  for (const Who& app : application) {
    writer.Rule(chain, base::StrCat("the application, ", app.how), {app.match, word::Jump(kApp)});
  }
  if (application.empty()) {
    writer.Rule(chain, "everybody is the application", {word::Jump(kApp)});
  }
  const Statements to = Statements{word::Tcp()} + WithinPorts("dport", config.outbound_ports);
  if (config.outbound_cidrs.empty()) {
    writer.Rule(kApp, kClosedOutboundComment, to + Drop());
    return;
  }
  for (const bool v4 : {true, false}) {
    const nlohmann::json ranges = word::Ranges(config.outbound_cidrs, v4);
    if (!ranges.empty()) {
      writer.Rule(
          kApp, kClosedOutboundComment,
          Statements{Match("==", word::Field(v4 ? "ip" : "ip6", "daddr"), word::Set(ranges))} + to +
              Drop());
    }
  }
}

void RenderClosedOut(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "closed_out";
  writer.BaseChain(kChain, "filter", "output", kAfterFilters);
  writer.LeaveAllButTcp(kChain);
  if (config.mode == RuleMode::kTproxy && config.inbound) {
    writer.Rule(kChain, "back to the proxy",
                {word::HasBit("meta", config.return_mark), Verdict("return")});
  }
  LeaveAndRemember(writer, config, kChain, "loop guard", TheProxy(config));
  LeaveRemembered(writer, config, kChain);
  writer.LeaveLoopback(kChain);  // which is also what a redirected packet goes to by now
  writer.Rule(kChain, "stays on this host", {Local("==", "daddr"), Verdict("return")});
  writer.LeaveInterfaces(kChain, "oifname");
  writer.LeaveOwnPorts(kChain, "sport");
  writer.LeaveOwnPorts(kChain, "dport");
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_outbound_ports);
  LeaveAndRemember(writer, config, kChain, "excluded", TheExcluded(config));
  writer.LeaveRanges(kChain, "excluded destinations", "daddr", config.exclude_outbound_cidrs);
  RenderAnswersOut(writer, config, kChain);
  if (config.outbound) {
    RenderApplicationOut(writer, config, kChain);
  }
}

// With tproxy the chain that takes connections drops the rest itself.
void RenderClosedIn(ChainWriter& writer, const InterceptConfig& config) {
  constexpr std::string_view kChain = "closed_in";
  writer.BaseChain(kChain, "filter", "input", kAfterFilters);
  writer.LeaveAllButTcp(kChain);
  writer.Rule(kChain, "from this host",
              {Match("==", word::Meta("iifname"), "lo"), Verdict("return")});
  writer.LeaveInterfaces(kChain, "iifname");
  writer.LeaveOwnPorts(kChain, "dport");  // which is also what a redirected packet goes to by now
  writer.LeavePorts(kChain, "excluded ports", "dport", config.exclude_inbound_ports);
  writer.LeaveRanges(kChain, "excluded sources", "saddr", config.exclude_inbound_cidrs);
  LeaveRemembered(writer, config, kChain);
  writer.LeavePorts(kChain, "answers of excluded ports", "sport", config.exclude_outbound_ports,
                    Later());
  writer.LeaveRanges(kChain, "answers of excluded destinations", "saddr",
                     config.exclude_outbound_cidrs, Later());
  writer.Rule(kChain, "answers to this host", Answers() + Statements{Verdict("return")});
  writer.Rule(kChain, kClosedInboundComment,
              Statements{word::Tcp()} + WithinPorts("dport", config.inbound_ports) + Drop());
}

}  // namespace

void RenderClosed(ChainWriter& writer, const InterceptConfig& config) {
  RenderClosedOut(writer, config);
  if (config.inbound && config.mode == RuleMode::kRedirect) {
    RenderClosedIn(writer, config);
  }
}

}  // namespace postern::intercept
