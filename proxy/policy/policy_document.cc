// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/policy_document.h"

#include <string_view>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/config/yaml_tree.h"

namespace postern::policy {
namespace {

using config::YamlField;
using config::YamlNode;

// Rules are compiled into tables of identity and port; this bounds what one rule can unfold into.
constexpr size_t kMaxCombinationsOfARule = 100'000;

absl::StatusOr<x509::SpiffeIdPattern> ReadPattern(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto pattern = x509::SpiffeIdPattern::Parse(*text);
  return pattern.ok() ? std::move(pattern) : field.Fault(base::Message(pattern.status()));
}

absl::StatusOr<x509::TrustDomain> ReadTrustDomain(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto domain = x509::TrustDomain::Parse(*text);
  return domain.ok() ? std::move(domain) : field.Fault(base::Message(domain.status()));
}

absl::StatusOr<config::PeerMode> ReadMode(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto mode = config::ParsePeerMode(*text);
  return mode.ok() ? mode : field.Fault(base::Message(mode.status()));
}

// Reads the list field `name` of `map` into `values` if it is there.
template <typename T, typename Read>
absl::Status ReadListInto(const YamlField& map, std::string_view name, Read read,
                          std::vector<T>& values) {
  const auto field = map.Find(name);
  if (!field) {
    return absl::OkStatus();
  }
  auto list = config::ReadList<T>(*field, read);
  if (!list.ok()) {
    return list.status();
  }
  values = *std::move(list);
  return absl::OkStatus();
}

absl::StatusOr<FromItem> ReadFrom(const YamlField& field) {
  FromItem item;
  absl::Status status = field.ExpectOnly({"spiffeIds", "trustDomains", "unauthenticated", "cidrs"});
  if (status.ok()) {
    status = ReadListInto(field, "spiffeIds", ReadPattern, item.ids);
  }
  if (status.ok()) {
    status = ReadListInto(field, "trustDomains", ReadTrustDomain, item.trust_domains);
  }
  if (status.ok()) {
    status = ReadListInto(field, "cidrs", config::ReadCidr, item.cidrs);
  }
  if (!status.ok()) {
    return status;
  }
  if (const auto flag = field.Find("unauthenticated")) {
    if (flag->node().text != "true") {
      return flag->Fault("only true is accepted; leave it out otherwise");
    }
    item.unauthenticated = true;
  }
  if (field.node().members.empty()) {
    return field.Fault("is empty; leave `from` out to mean everybody");
  }
  if (item.unauthenticated && !(item.ids.empty() && item.trust_domains.empty())) {
    return field.Fault(
        "nobody is unauthenticated and has an identity; write two items, either may match");
  }
  return item;
}

absl::StatusOr<std::string> ReadText(const YamlField& field) {
  return field.Text();
}

absl::StatusOr<ToItem> ReadTo(const YamlField& field) {
  ToItem item;
  absl::Status status = field.ExpectOnly({"ports", "tunnels"});
  if (status.ok()) {
    status = ReadListInto(
        field, "ports", [](const YamlField& port) { return port.Port(); }, item.ports);
  }
  if (status.ok()) {
    status = ReadListInto(field, "tunnels", ReadText, item.tunnels);
  }
  if (!status.ok()) {
    return status;
  }
  if (field.node().members.empty()) {
    return field.Fault("is empty; leave `to` out to mean everything");
  }
  return item;
}

size_t Combinations(const Rule& rule) {
  size_t sources = rule.from.empty() ? 1 : 0;
  for (const FromItem& item : rule.from) {
    sources += !item.ids.empty()             ? item.ids.size()
               : !item.trust_domains.empty() ? item.trust_domains.size()
               : item.unauthenticated        ? 1
                                             : item.cidrs.size();
  }
  size_t targets = rule.to.empty() ? 1 : 0;
  for (const ToItem& item : rule.to) {
    targets += !item.ports.empty() ? item.ports.size() : item.tunnels.size();
  }
  return sources * targets;
}

absl::StatusOr<Rule> ReadRule(const YamlField& field) {
  Rule rule;
  absl::Status status = field.ExpectOnly({"from", "to"});
  if (status.ok()) {
    status = ReadListInto(field, "from", ReadFrom, rule.from);
  }
  if (status.ok()) {
    status = ReadListInto(field, "to", ReadTo, rule.to);
  }
  if (!status.ok()) {
    return status;
  }
  if (Combinations(rule) > kMaxCombinationsOfARule) {
    return field.Fault(base::StrCat("names more than ", kMaxCombinationsOfARule,
                                    " combinations of source and target; split the rule"));
  }
  return rule;
}

absl::StatusOr<std::optional<x509::SpiffeIdPattern>> ReadWorkload(const YamlField& spec) {
  const auto field = spec.Find("workload");
  if (!field) {
    return std::optional<x509::SpiffeIdPattern>();
  }
  auto pattern = ReadPattern(*field);
  if (!pattern.ok()) {
    return pattern.status();
  }
  return std::optional<x509::SpiffeIdPattern>(*std::move(pattern));
}

absl::StatusOr<Action> ReadAction(const YamlField& spec) {
  const auto field = spec.Get("action");
  if (!field.ok()) {
    return field.status();
  }
  if (field->node().text == "ALLOW") {
    return Action::kAllow;
  }
  if (field->node().text == "DENY") {
    return Action::kDeny;
  }
  return field->Fault(
      base::StrCat("'", base::Printable(field->node().text, 64), "' is not one of: ALLOW, DENY"));
}

absl::StatusOr<PolicyDocument> ReadAuthorization(const config::Document& document,
                                                 const YamlField& spec) {
  AuthorizationDocument policy;
  policy.name = document.name;
  policy.place = base::StrCat(document.file_name, ":", document.root.line);
  if (auto status = spec.ExpectOnly({"workload", "action", "rules"}); !status.ok()) {
    return status;
  }
  auto workload = ReadWorkload(spec);
  if (!workload.ok()) {
    return workload.status();
  }
  policy.workload = *std::move(workload);
  const auto action = ReadAction(spec);
  if (!action.ok()) {
    return action.status();
  }
  policy.action = *action;
  const auto rules = spec.Get("rules");
  if (!rules.ok()) {
    return rules.status();
  }
  // "rules: []" of an ALLOW is the way to write that nobody is let in.
  if (policy.action == Action::kAllow && rules->node().kind == YamlNode::Kind::kSequence &&
      rules->node().items.empty()) {
    return policy;
  }
  auto list = config::ReadList<Rule>(*rules, ReadRule);
  if (!list.ok()) {
    return list.status();
  }
  policy.rules = *std::move(list);
  return policy;
}

absl::Status ReadPortModes(const YamlField& ports, std::map<uint16_t, config::PeerMode>& modes) {
  if (ports.node().kind != YamlNode::Kind::kMap || ports.node().members.empty()) {
    return ports.Fault("must be a map of port and mode, as in {\"3306\": permissive}");
  }
  for (const config::YamlMember& member : ports.node().members) {
    const YamlField value(member.value,
                          base::StrCat(ports.path(), ".", base::Printable(member.key)),
                          ports.file_name());
    const uint16_t port = base::ParseNumber<uint16_t>(member.key).value_or(uint16_t{0});
    if (port == 0) {
      return value.Fault("the field's name is no port; write a number from 1 to 65535");
    }
    const auto mode = ReadMode(value);
    if (!mode.ok()) {
      return mode.status();
    }
    if (!modes.emplace(port, *mode).second) {
      return value.Fault("the port stands twice");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<PolicyDocument> ReadPeerMode(const config::Document& document,
                                            const YamlField& spec) {
  PeerModeDocument modes;
  modes.name = document.name;
  modes.place = base::StrCat(document.file_name, ":", document.root.line);
  if (auto status = spec.ExpectOnly({"workload", "default", "ports"}); !status.ok()) {
    return status;
  }
  auto workload = ReadWorkload(spec);
  if (!workload.ok()) {
    return workload.status();
  }
  modes.workload = *std::move(workload);
  if (const auto field = spec.Find("default")) {
    const auto mode = ReadMode(*field);
    if (!mode.ok()) {
      return mode.status();
    }
    modes.default_mode = *mode;
  }
  if (const auto ports = spec.Find("ports")) {
    if (auto status = ReadPortModes(*ports, modes.ports); !status.ok()) {
      return status;
    }
  }
  if (!modes.default_mode && modes.ports.empty()) {
    return spec.Fault("says nothing; give default, ports or both");
  }
  return modes;
}

}  // namespace

absl::StatusOr<std::vector<PolicyDocument>> ReadPolicyDocuments(const NamedYaml& source) {
  const auto documents = config::ReadDocuments(source.yaml, source.name);
  if (!documents.ok()) {
    return documents.status();
  }
  std::vector<PolicyDocument> policies;
  for (const config::Document& document : *documents) {
    const YamlField spec = document.Spec();
    absl::StatusOr<PolicyDocument> policy =
        document.kind == "AuthorizationPolicy" ? ReadAuthorization(document, spec)
        : document.kind == "PeerMode"
            ? ReadPeerMode(document, spec)
            : YamlField(document.root, "", document.file_name)
                  .Find("kind")
                  ->Fault(base::StrCat("is '", base::Printable(document.kind, 64),
                                       "'; policy holds AuthorizationPolicy and PeerMode"));
    if (!policy.ok()) {
      return policy.status();
    }
    policies.push_back(*std::move(policy));
  }
  return policies;
}

}  // namespace postern::policy
