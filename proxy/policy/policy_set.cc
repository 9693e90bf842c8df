// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/policy_set.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "common/base/strings.h"
#include "proxy/policy/policy_document.h"
#include "proxy/policy/rule_index.h"

namespace postern::policy {

struct PolicySet::Impl {
  enum class Default : uint8_t { kSameTrustDomain, kDenyAll };

  Default otherwise = Default::kSameTrustDomain;
  std::string trust_domain;  // the workload's
  RuleIndex deny;
  RuleIndex allow;
  bool has_allow = false;  // an ALLOW document applies, even one without a rule
  uint64_t revision = 0;
  std::vector<PeerModeDocument> modes;  // the most specific first
};

namespace {

bool AppliesTo(const std::optional<x509::SpiffeIdPattern>& pattern,
               const x509::SpiffeId& workload) {
  return !pattern || pattern->Matches(workload);
}

// How closely a pattern names a workload: nobody in particular, a prefix by its length, one
// exactly.
size_t Specificity(const std::optional<x509::SpiffeIdPattern>& pattern) {
  if (!pattern) {
    return 0;
  }
  return pattern->is_wildcard() ? pattern->ToString().size() : SIZE_MAX;
}

absl::Status AddRules(const AuthorizationDocument& document, PolicySet::Impl& impl) {
  const bool allows = document.action == Action::kAllow;
  impl.has_allow = impl.has_allow || allows;
  RuleIndex& index = allows ? impl.allow : impl.deny;
  for (size_t i = 0; i < document.rules.size(); ++i) {
    if (!index.Add(document.rules[i], base::StrCat(document.name, " / rule ", i + 1))) {
      return absl::InvalidArgumentError(
          base::StrCat(document.place, ": metadata.name: ", document.name,
                       ": the rules in all name over a million combinations of source and target; "
                       "use patterns, trust domains or fewer ports"));
    }
  }
  return absl::OkStatus();
}

// Puts the most specific first. Two documents of the same reach must not say different things:
// which one counted would be chance.
absl::Status OrderModes(std::vector<PeerModeDocument>& modes) {
  std::ranges::stable_sort(modes, std::greater<>(),
                           [](const PeerModeDocument& it) { return Specificity(it.workload); });
  for (size_t i = 1; i < modes.size(); ++i) {
    const PeerModeDocument& a = modes[i - 1];
    const PeerModeDocument& b = modes[i];
    if (Specificity(a.workload) == Specificity(b.workload)) {
      return absl::InvalidArgumentError(base::StrCat(b.place, ": spec.workload: PeerMode ", b.name,
                                                     " is for the same workload as ", a.name, " (",
                                                     a.place, "); put both into one document"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const PolicySet>> PolicySet::Compile(
    const std::vector<NamedYaml>& documents, const x509::SpiffeId& workload, uint64_t revision) {
  auto impl = std::make_unique<Impl>();
  impl->trust_domain = std::string(workload.trust_domain_name());
  impl->revision = revision;
  std::set<std::pair<size_t, std::string>> names;  // kind and name
  for (const NamedYaml& source : documents) {
    auto policies = ReadPolicyDocuments(source);
    if (!policies.ok()) {
      return policies.status();
    }
    for (PolicyDocument& policy : *policies) {
      const auto& [name, place] = std::visit(
          [](const auto& it) { return std::pair<std::string, std::string>(it.name, it.place); },
          policy);
      if (!names.emplace(policy.index(), name).second) {
        return absl::InvalidArgumentError(base::StrCat(
            place, ": metadata.name: another document of this kind is called ", name, " too"));
      }
      if (auto* modes = std::get_if<PeerModeDocument>(&policy)) {
        if (AppliesTo(modes->workload, workload)) {
          impl->modes.push_back(std::move(*modes));
        }
        continue;
      }
      const auto& rules = std::get<AuthorizationDocument>(policy);
      if (AppliesTo(rules.workload, workload)) {
        if (auto status = AddRules(rules, *impl); !status.ok()) {
          return status;
        }
      }
    }
  }
  if (auto status = OrderModes(impl->modes); !status.ok()) {
    return status;
  }
  return std::make_shared<const PolicySet>(std::move(impl));
}

std::shared_ptr<const PolicySet> PolicySet::SameTrustDomain(const x509::SpiffeId& workload) {
  auto impl = std::make_unique<Impl>();
  impl->trust_domain = std::string(workload.trust_domain_name());
  return std::make_shared<const PolicySet>(std::move(impl));
}

std::shared_ptr<const PolicySet> PolicySet::DenyAll() {
  auto impl = std::make_unique<Impl>();
  impl->otherwise = Impl::Default::kDenyAll;
  return std::make_shared<const PolicySet>(std::move(impl));
}

Decision PolicySet::Authorize(const ConnectionFacts& facts) const {
  if (impl_->otherwise == Impl::Default::kDenyAll) {
    return {false, "no policy has come yet"};
  }
  if (const std::string* rule = impl_->deny.Match(facts)) {
    return {false, *rule};
  }
  if (impl_->has_allow) {
    const std::string* rule = impl_->allow.Match(facts);
    return rule != nullptr ? Decision{true, *rule} : Decision{false, "no ALLOW rule matched"};
  }
  if (!facts.source) {
    // Such a connection gets this far only where the port's mode or the tunnel asks for no
    // identity.
    return {true, "no policy, unauthenticated source let in by the port's mode"};
  }
  if (facts.source->trust_domain_name() == impl_->trust_domain) {
    return {true, "same trust domain"};
  }
  return {false, "another trust domain, and no ALLOW rule for it"};
}

std::optional<config::PeerMode> PolicySet::ModeOf(uint16_t port) const {
  for (const PeerModeDocument& document : impl_->modes) {
    const auto found = document.ports.find(port);
    if (found != document.ports.end()) {
      return found->second;
    }
    if (document.default_mode) {
      return document.default_mode;
    }
  }
  return std::nullopt;
}

uint64_t PolicySet::revision() const {
  return impl_->revision;
}

bool PolicySet::is_deny_all() const {
  return impl_->otherwise == Impl::Default::kDenyAll;
}

PolicySet::PolicySet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

PolicySet::~PolicySet() = default;

}  // namespace postern::policy
