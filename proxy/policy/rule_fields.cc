// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/rule_fields.h"

#include <string>
#include <utility>

#include "common/base/strings.h"

namespace postern::policy {
namespace {

using config::YamlField;

// Rules are compiled into tables of identity and port; this bounds what one rule can unfold into.
constexpr size_t kMaxCombinationsOfARule = 100'000;

absl::StatusOr<x509::TrustDomain> ReadTrustDomain(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto domain = x509::TrustDomain::Parse(*text);
  return domain.ok() ? std::move(domain) : field.Fault(base::Message(domain.status()));
}

absl::StatusOr<std::string> ReadTunnel(const YamlField& field) {
  return field.Text();
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

absl::StatusOr<ToItem> ReadTo(const YamlField& field) {
  ToItem item;
  absl::Status status = field.ExpectOnly({"ports", "tunnels"});
  if (status.ok()) {
    status = ReadListInto(
        field, "ports", [](const YamlField& port) { return port.Port(); }, item.ports);
  }
  if (status.ok()) {
    status = ReadListInto(field, "tunnels", ReadTunnel, item.tunnels);
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

}  // namespace

absl::StatusOr<Rule> ReadRule(const YamlField& field) {
  Rule rule;
  rule.line = field.node().line;
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

absl::StatusOr<x509::SpiffeIdPattern> ReadPattern(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto pattern = x509::SpiffeIdPattern::Parse(*text);
  return pattern.ok() ? std::move(pattern) : field.Fault(base::Message(pattern.status()));
}

}  // namespace postern::policy
