// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/chain_writer.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/strings.h"
#include "proxy/intercept/cgroup.h"

namespace postern::intercept {

using nlohmann::json;

Statements operator+(Statements left, const Statements& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

namespace word {
namespace {

json Mark(std::string_view mark) {
  return mark == "ct" ? Ct("mark") : Meta("mark");
}

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

// Whether another range of the list has all of this one.
bool IsCovered(const std::vector<base::Cidr>& cidrs, size_t index) {
  const base::Cidr& cidr = cidrs[index];
  for (size_t i = 0; i < cidrs.size(); ++i) {
    const base::Cidr& other = cidrs[i];
    const bool wider = other.prefix_length() < cidr.prefix_length() ||
                       (other.prefix_length() == cidr.prefix_length() && i < index);
    if (i != index && wider && other.base().is_v4() == cidr.base().is_v4() &&
        other.Contains(cidr.base())) {
      return true;
    }
  }
  return false;
}

}  // namespace

json Match(std::string_view op, json left, json right) {
  return {{"match", {{"op", op}, {"left", std::move(left)}, {"right", std::move(right)}}}};
}
json Meta(std::string_view key) {
  return {{"meta", {{"key", key}}}};
}
json Ct(std::string_view key) {
  return {{"ct", {{"key", key}}}};
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
json Jump(std::string_view chain) {
  return {{"jump", {{"target", chain}}}};
}
json Redirect(uint16_t port) {
  return {{"redirect", {{"port", port}}}};
}
json Tproxy(uint16_t port) {
  return {{"tproxy", {{"port", port}}}};
}
json Set(json elements) {
  return {{"set", std::move(elements)}};
}
json Tcp() {
  return Match("==", Meta("l4proto"), "tcp");
}
json FirstPacket(std::string_view op) {
  const json flags = {{"&", {Field("tcp", "flags"), json::array({"fin", "syn", "rst", "ack"})}}};
  return Match(op, flags, "syn");
}
json Local(std::string_view op, std::string_view address) {
  const json type = {{"fib", {{"result", "type"}, {"flags", json::array({address})}}}};
  return Match(op, type, "local");
}
json HasBit(std::string_view mark, uint32_t bit) {
  return Match("==", {{"&", json::array({Mark(mark), bit})}}, bit);
}
json SetBit(std::string_view mark, uint32_t bit) {
  const json with_bit = {{"|", json::array({Mark(mark), bit})}};
  return {{"mangle", {{"key", Mark(mark)}, {"value", with_bit}}}};
}

json Ports(std::vector<PortRange> ranges) {
  json elements = json::array();
  for (const PortRange& range : Merged(std::move(ranges))) {
    if (range.first == range.last) {
      elements.push_back(range.first);
    } else {
      elements.push_back({{"range", json::array({range.first, range.last})}});
    }
  }
  return Set(std::move(elements));
}

json Ranges(const std::vector<base::Cidr>& cidrs, bool v4) {
  json elements = json::array();
  for (size_t i = 0; i < cidrs.size(); ++i) {
    const base::Cidr& cidr = cidrs[i];
    if (cidr.base().is_v4() != v4 || IsCovered(cidrs, i)) {
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

Statements WithinPorts(std::string_view field, const std::vector<PortRange>& ports) {
  if (ports.empty()) {
    return {};
  }
  return {Match("==", Field("tcp", field), Ports(ports))};
}

}  // namespace word

namespace {

template <typename Id>
json Ids(const std::vector<Id>& ids) {
  return word::Set(json(std::set<Id>(ids.begin(), ids.end())));
}

std::vector<Who> ByIds(const std::vector<uid_t>& uids, const std::vector<gid_t>& gids) {
  std::vector<Who> who;
  if (!uids.empty()) {
    who.push_back({"by uid", word::Match("==", word::Meta("skuid"), Ids(uids))});
  }
  if (!gids.empty()) {
    who.push_back({"by gid", word::Match("==", word::Meta("skgid"), Ids(gids))});
  }
  return who;
}

void AddCgroups(const std::vector<Cgroup>& cgroups, std::vector<Who>* who) {
  for (const Cgroup& cgroup : cgroups) {
    const json socket = {{"socket", {{"key", "cgroupv2"}, {"level", cgroup.level}}}};
    who->push_back({"by cgroup", word::Match("==", socket, cgroup.path)});
  }
}

}  // namespace

std::vector<Who> TheProxy(const InterceptConfig& config) {
  std::vector<Who> who = ByIds(config.proxy_uids, config.proxy_gids);
  if (config.proxy_mark != 0) {
    who.push_back({"by mark", word::Match("==", word::Meta("mark"), config.proxy_mark)});
  }
  return who;
}

std::vector<Who> TheExcluded(const InterceptConfig& config) {
  std::vector<Who> who = ByIds(config.exclude_uids, config.exclude_gids);
  AddCgroups(config.exclude_cgroups, &who);
  return who;
}

std::vector<Who> TheApplication(const InterceptConfig& config) {
  std::vector<Who> who = ByIds(config.app_uids, config.app_gids);
  AddCgroups(config.app_cgroups, &who);
  return who;
}

void ChainWriter::BaseChain(std::string_view name, std::string_view type, std::string_view hook,
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

void ChainWriter::PlainChain(std::string_view name) {
  commands_.push_back(
      {{"add", {{"chain", {{"family", "inet"}, {"table", table_}, {"name", name}}}}}});
}

void ChainWriter::Rule(std::string_view chain, std::string_view comment,
                       const Statements& statements) {
  commands_.push_back({{"add",
                        {{"rule",
                          {{"family", "inet"},
                           {"table", table_},
                           {"chain", chain},
                           {"comment", comment},
                           {"expr", statements}}}}}});
}

void ChainWriter::LeaveAllButTcp(std::string_view chain) {
  Rule(chain, "not TCP",
       {word::Match("!=", word::Meta("l4proto"), "tcp"), word::Verdict("return")});
}

void ChainWriter::LeaveAllButNewTcp(std::string_view chain) {
  LeaveAllButTcp(chain);
  Rule(chain, "not the first packet of a connection",
       {word::FirstPacket("!="), word::Verdict("return")});
}

void ChainWriter::LeaveLoopback(std::string_view chain) {
  const json v4 = {{"prefix", {{"addr", "127.0.0.0"}, {"len", 8}}}};
  Rule(chain, "loopback, IPv4",
       {word::Match("==", word::Field("ip", "daddr"), v4), word::Verdict("return")});
  Rule(chain, "loopback, IPv6",
       {word::Match("==", word::Field("ip6", "daddr"), "::1"), word::Verdict("return")});
}

void ChainWriter::LeaveWho(std::string_view chain, std::string_view comment,
                           const std::vector<Who>& who, const Statements& first) {
  for (const Who& one : who) {
    Rule(chain, base::StrCat(comment, ", ", one.how),
         Statements{one.match} + first + Statements{word::Verdict("return")});
  }
}

void ChainWriter::LeaveOwnPorts(std::string_view chain, std::string_view field) {
  std::vector<PortRange> ports;
  for (const uint16_t port : PortsNeverTaken(config_)) {
    ports.push_back({port, port});
  }
  Rule(chain, field == "sport" ? "from the proxy's own ports" : "the proxy's own ports",
       word::WithinPorts(field, ports) + Statements{word::Verdict("return")});
}

void ChainWriter::LeavePorts(std::string_view chain, std::string_view comment,
                             std::string_view field, const std::vector<PortRange>& ports,
                             const Statements& when) {
  if (!ports.empty()) {
    Rule(chain, comment,
         when + word::WithinPorts(field, ports) + Statements{word::Verdict("return")});
  }
}

void ChainWriter::LeaveInterfaces(std::string_view chain, std::string_view key) {
  if (config_.exclude_interfaces.empty()) {
    return;
  }
  const auto& names = config_.exclude_interfaces;
  const json set = json(std::set<std::string>(names.begin(), names.end()));
  Rule(chain, "excluded interfaces",
       {word::Match("==", word::Meta(key), word::Set(set)), word::Verdict("return")});
}

void ChainWriter::LeaveRanges(std::string_view chain, std::string_view comment,
                              std::string_view field, const std::vector<base::Cidr>& cidrs,
                              const Statements& when) {
  for (const bool v4 : {true, false}) {
    const json ranges = word::Ranges(cidrs, v4);
    if (ranges.empty()) {
      continue;
    }
    Rule(chain, base::StrCat(comment, v4 ? ", IPv4" : ", IPv6"),
         when +
             Statements{word::Match("==", word::Field(v4 ? "ip" : "ip6", field), word::Set(ranges)),
                        word::Verdict("return")});
  }
}

}  // namespace postern::intercept
