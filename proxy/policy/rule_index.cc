// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/rule_index.h"

#include <algorithm>

namespace postern::policy {
namespace {

constexpr size_t kMaxEntries = 1'000'000;
constexpr std::string_view kScheme = "spiffe://";

}  // namespace

bool RuleIndex::Condition::Holds(const ConnectionFacts& facts) const {
  if (!cidrs.empty() &&
      !(facts.source_ip && std::ranges::any_of(cidrs, [&](const base::Cidr& range) {
          return range.Contains(*facts.source_ip);
        }))) {
    return false;
  }
  return tunnels.empty() || std::ranges::find(tunnels, facts.tunnel) != tunnels.end();
}

bool RuleIndex::Add(const Rule& rule, std::string label) {
  const auto number = static_cast<uint32_t>(labels_.size());
  labels_.push_back(std::move(label));
  static const std::vector<ToItem> kEverything(1);
  const std::vector<ToItem>& targets = rule.to.empty() ? kEverything : rule.to;
  for (const ToItem& to : targets) {
    if (rule.from.empty()) {
      AddTo(everybody_, to, {.rule = number, .condition = kNone});
    }
    for (const FromItem& from : rule.from) {
      AddFrom(from, to, number);
    }
    if (entries_ > kMaxEntries) {
      return false;
    }
  }
  return true;
}

void RuleIndex::AddFrom(const FromItem& from, const ToItem& to, uint32_t rule) {
  Clause clause{.rule = rule, .condition = kNone};
  const bool only_ranges = from.ids.empty() && from.trust_domains.empty() && !from.unauthenticated;
  if (only_ranges) {
    for (const base::Cidr& range : from.cidrs) {
      AddTo(ranges_[range], to, clause);
    }
    return;
  }
  if (!from.cidrs.empty()) {
    clause.condition = static_cast<uint32_t>(conditions_.size());
    conditions_.push_back({from.cidrs, {}});
  }
  if (from.unauthenticated) {
    AddTo(unauthenticated_, to, clause);
    return;
  }
  if (from.ids.empty()) {
    for (const x509::TrustDomain& domain : from.trust_domains) {
      AddTo(trust_domains_[domain.name()], to, clause);
    }
    return;
  }
  for (const x509::SpiffeIdPattern& pattern : from.ids) {
    std::string text = pattern.ToString();
    // With trust domains given as well, an identity of another one never matches.
    const std::string_view rest = std::string_view(text).substr(kScheme.size());
    const std::string_view domain = rest.substr(0, rest.find('/'));
    if (!from.trust_domains.empty() &&
        std::ranges::find(from.trust_domains, domain, &x509::TrustDomain::name) ==
            from.trust_domains.end()) {
      continue;
    }
    if (pattern.is_wildcard()) {
      text.pop_back();  // the "*"
      longest_prefix_ = std::max(longest_prefix_, text.size());
      AddTo(prefixes_[text], to, clause);
    } else {
      AddTo(ids_[text], to, clause);
    }
  }
}

void RuleIndex::AddTo(Targets& targets, const ToItem& to, Clause clause) {
  if (!to.ports.empty() && !to.tunnels.empty()) {
    Condition condition = clause.condition == kNone ? Condition() : conditions_[clause.condition];
    condition.tunnels = to.tunnels;
    clause.condition = static_cast<uint32_t>(conditions_.size());
    conditions_.push_back(std::move(condition));
  }
  for (const uint16_t port : to.ports) {
    Append(targets.ports[port], clause);
  }
  if (!to.ports.empty()) {
    return;
  }
  for (const std::string& tunnel : to.tunnels) {
    Append(targets.tunnels[tunnel], clause);
  }
  if (to.tunnels.empty()) {
    Append(targets.everything, clause);
  }
}

void RuleIndex::Append(Clauses& clauses, Clause clause) {
  if (clauses.empty() || clauses.back().condition != kNone) {
    clauses.push_back(clause);
    ++entries_;
  }
}

const std::string* RuleIndex::Match(const ConnectionFacts& facts) const {
  uint32_t best = kNone;
  Judge(everybody_, facts, best);
  if (facts.source) {
    JudgeIdentity(*facts.source, facts, best);
  } else {
    Judge(unauthenticated_, facts, best);
  }
  if (facts.source_ip) {
    ranges_.ForEachAround(*facts.source_ip,
                          [&](const Targets& targets) { Judge(targets, facts, best); });
  }
  return best == kNone ? nullptr : &labels_[best];
}

void RuleIndex::JudgeIdentity(const x509::SpiffeId& id, const ConnectionFacts& facts,
                              uint32_t& best) const {
  const auto judge = [&](const auto& table, std::string_view key) {
    const auto found = table.find(base::ToAbsl(key));
    if (found != table.end()) {
      Judge(found->second, facts, best);
    }
  };
  judge(ids_, id.uri());
  judge(trust_domains_, id.trust_domain_name());
  // Each prefix that ends with a slash behind the authority, as a whole number of segments.
  const std::string_view uri = id.uri();
  for (size_t slash = uri.find('/', kScheme.size());
       slash != std::string_view::npos && slash < longest_prefix_;
       slash = uri.find('/', slash + 1)) {
    judge(prefixes_, uri.substr(0, slash + 1));
  }
}

void RuleIndex::Judge(const Targets& targets, const ConnectionFacts& facts, uint32_t& best) const {
  JudgeList(targets.everything, facts, best);
  if (facts.destination_port != 0) {
    const auto found = targets.ports.find(facts.destination_port);
    if (found != targets.ports.end()) {
      JudgeList(found->second, facts, best);
    }
  }
  if (!facts.tunnel.empty()) {
    const auto found = targets.tunnels.find(facts.tunnel);
    if (found != targets.tunnels.end()) {
      JudgeList(found->second, facts, best);
    }
  }
}

void RuleIndex::JudgeList(const Clauses& clauses, const ConnectionFacts& facts,
                          uint32_t& best) const {
  for (const Clause& clause : clauses) {
    if (clause.rule >= best) {
      return;
    }
    if (clause.condition == kNone || conditions_[clause.condition].Holds(facts)) {
      best = clause.rule;
      return;
    }
  }
}

}  // namespace postern::policy
