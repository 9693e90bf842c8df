// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/policy_set.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "common/base/strings.h"
#include "proxy/policy/policy_document.h"
#include "proxy/policy/rule_index.h"

namespace postern::policy {

struct PolicySet::Impl {
  // What documents of one enforcement say together.
  struct Layer {
    RuleIndex deny;
    RuleIndex allow;
    bool has_allow = false;                 // an ALLOW document applies, even one without a rule
    std::vector<DefaultDocument> defaults;  // the most specific first
  };
  struct Probe {
    base::Cidr cidr;
    std::string name;
  };

  Layer& LayerOf(Enforcement enforcement) {
    return enforcement == Enforcement::kAudit ? audited : enforced;
  }
  Decision Enforced(const ConnectionFacts& facts) const;
  std::string WouldRefuse(const ConnectionFacts& facts) const;

  bool deny_all = false;     // nothing has come yet
  std::string trust_domain;  // the workload's
  Layer enforced;
  Layer audited;
  bool audits = false;  // there is anything in `audited`
  uint64_t revision = 0;
  std::vector<PeerModeDocument> modes;  // the most specific first
  absl::flat_hash_map<uint16_t, std::vector<Probe>> probes;
};

namespace {

constexpr std::string_view kNoAllowMatched = "no ALLOW rule matched";

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

// Puts the most specific first. Two documents of the same reach must not say different things:
// which one counted would be chance.
template <typename Kind>
absl::Status OrderByReach(std::vector<Kind>& documents, std::string_view kind) {
  std::ranges::stable_sort(documents, std::greater<>(),
                           [](const Kind& it) { return Specificity(it.workload); });
  for (size_t i = 1; i < documents.size(); ++i) {
    const Kind& a = documents[i - 1];
    const Kind& b = documents[i];
    if (Specificity(a.workload) == Specificity(b.workload)) {
      return absl::InvalidArgumentError(base::StrCat(
          b.place, ": spec.workload: ", kind, " ", b.name, " is for the same workload as ", a.name,
          " (", a.place, "); put both into one document"));
    }
  }
  return absl::OkStatus();
}

// Whether a default lets this source in; says so in words for the log.
Decision ByDefault(DefaultAccess access, std::string_view trust_domain,
                   const ConnectionFacts& facts) {
  switch (access) {
    case DefaultAccess::kSameTrustDomain:
      if (!facts.source) {
        // Such a connection gets this far only where the port's mode or the tunnel asks for no
        // identity.
        return {true, "no policy, unauthenticated source let in by the port's mode", ""};
      }
      if (facts.source->trust_domain_name() == trust_domain) {
        return {true, "same trust domain", ""};
      }
      return {false, "another trust domain, and no ALLOW rule for it", ""};
    case DefaultAccess::kAnyIdentity:
      return {facts.source.has_value(), "any identity", ""};
    case DefaultAccess::kEverybody:
      return {true, "everybody", ""};
    case DefaultAccess::kNobody:
      return {false, "nobody", ""};
  }
  return {};
}

// Adds documents one by one; those of other workloads are checked by then, and left out here.
class Compiler {
 public:
  Compiler(PolicySet::Impl& impl, const x509::SpiffeId& workload)
      : impl_(impl), workload_(workload) {}

  absl::Status Add(PolicyDocument document) {
    const size_t kind = document.index();
    return std::visit(
        [&](auto& it) {
          if (!names_.emplace(kind, it.name).second) {
            return absl::InvalidArgumentError(
                base::StrCat(it.place, ": metadata.name: another document of this kind is called ",
                             it.name, " too"));
          }
          return AppliesTo(it.workload, workload_) ? Take(std::move(it)) : absl::OkStatus();
        },
        document);
  }

  absl::Status Finish() {
    absl::Status status = OrderByReach(impl_.modes, "PeerMode");
    for (PolicySet::Impl::Layer* layer : {&impl_.enforced, &impl_.audited}) {
      if (status.ok()) {
        status = OrderByReach(layer->defaults, "DefaultPolicy");
      }
    }
    return status;
  }

 private:
  absl::Status Take(AuthorizationDocument document) {
    const bool allows = document.action == Action::kAllow;
    PolicySet::Impl::Layer& layer = impl_.LayerOf(document.enforcement);
    impl_.audits = impl_.audits || document.enforcement == Enforcement::kAudit;
    layer.has_allow = layer.has_allow || allows;
    RuleIndex& index = allows ? layer.allow : layer.deny;
    for (size_t i = 0; i < document.rules.size(); ++i) {
      if (!index.Add(document.rules[i], RuleLabel(document.name, i))) {
        return absl::InvalidArgumentError(base::StrCat(
            document.place, ": metadata.name: ", document.name,
            ": the rules in all name over a million combinations of source and target; "
            "use patterns, trust domains or fewer ports"));
      }
    }
    return absl::OkStatus();
  }
  absl::Status Take(PeerModeDocument document) {
    impl_.modes.push_back(std::move(document));
    return absl::OkStatus();
  }
  absl::Status Take(DefaultDocument document) {
    impl_.audits = impl_.audits || document.enforcement == Enforcement::kAudit;
    impl_.LayerOf(document.enforcement).defaults.push_back(std::move(document));
    return absl::OkStatus();
  }
  absl::Status Take(ProbeDocument document) {
    for (const uint16_t port : document.ports) {
      for (const base::Cidr& cidr : document.cidrs) {
        impl_.probes[port].push_back({cidr, document.name});
      }
    }
    return absl::OkStatus();
  }

  PolicySet::Impl& impl_;
  const x509::SpiffeId& workload_;
  std::set<std::pair<size_t, std::string>> names_;  // kind and name
};

}  // namespace

absl::StatusOr<std::shared_ptr<const PolicySet>> PolicySet::Compile(
    const std::vector<NamedYaml>& documents, const x509::SpiffeId& workload, uint64_t revision) {
  auto impl = std::make_unique<Impl>();
  impl->trust_domain = std::string(workload.trust_domain_name());
  impl->revision = revision;
  Compiler compiler(*impl, workload);
  for (const NamedYaml& source : documents) {
    auto policies = ReadPolicyDocuments(source);
    if (!policies.ok()) {
      return policies.status();
    }
    for (PolicyDocument& policy : *policies) {
      if (auto status = compiler.Add(std::move(policy)); !status.ok()) {
        return status;
      }
    }
  }
  if (auto status = compiler.Finish(); !status.ok()) {
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
  impl->deny_all = true;
  return std::make_shared<const PolicySet>(std::move(impl));
}

Decision PolicySet::Impl::Enforced(const ConnectionFacts& facts) const {
  if (const std::string* rule = enforced.deny.Match(facts)) {
    return {false, *rule, ""};
  }
  if (enforced.has_allow) {
    const std::string* rule = enforced.allow.Match(facts);
    return rule != nullptr ? Decision{true, *rule, ""}
                           : Decision{false, std::string(kNoAllowMatched), ""};
  }
  if (enforced.defaults.empty()) {
    return ByDefault(DefaultAccess::kSameTrustDomain, trust_domain, facts);
  }
  const DefaultDocument& chosen = enforced.defaults.front();
  Decision decision = ByDefault(chosen.access, trust_domain, facts);
  decision.rule = base::StrCat(chosen.name, " / default: ", decision.rule);
  return decision;
}

// Of a connection that the enforced documents let in: what both layers together would say.
std::string PolicySet::Impl::WouldRefuse(const ConnectionFacts& facts) const {
  if (const std::string* rule = audited.deny.Match(facts)) {
    return *rule;
  }
  if (enforced.has_allow) {
    return "";  // one of its rules has matched
  }
  if (audited.has_allow) {
    return audited.allow.Match(facts) != nullptr ? "" : std::string(kNoAllowMatched);
  }
  if (audited.defaults.empty()) {
    return "";
  }
  const DefaultDocument& chosen = audited.defaults.front();
  const Decision decision = ByDefault(chosen.access, trust_domain, facts);
  return decision.allowed ? "" : base::StrCat(chosen.name, " / default: ", decision.rule);
}

Decision PolicySet::Authorize(const ConnectionFacts& facts) const {
  if (impl_->deny_all) {
    return {false, "no policy has come yet", ""};
  }
  Decision decision = impl_->Enforced(facts);
  if (decision.allowed && impl_->audits) {
    decision.audit = impl_->WouldRefuse(facts);
  }
  return decision;
}

Decision PolicySet::AuthorizeOn(config::PeerMode mode, const ConnectionFacts& facts) const {
  if (!impl_->deny_all) {
    if (mode == config::PeerMode::kSkip) {
      return {true, "the port is skipped", ""};
    }
    if (!facts.source && facts.tunnel.empty()) {
      if (const std::string* probe = ProbeExemption(facts.source_ip, facts.destination_port)) {
        return {true, base::StrCat(*probe, " / probe exemption"), ""};
      }
      if (mode == config::PeerMode::kStrict) {
        return {false, "the port's mode is strict, and the client has no identity", ""};
      }
    }
  }
  return Authorize(facts);
}

const std::string* PolicySet::ProbeExemption(const std::optional<base::IpAddress>& source_ip,
                                             uint16_t port) const {
  const auto found = impl_->probes.find(port);
  if (!source_ip || found == impl_->probes.end()) {
    return nullptr;
  }
  const auto probe = std::ranges::find_if(
      found->second, [&](const Impl::Probe& it) { return it.cidr.Contains(*source_ip); });
  return probe == found->second.end() ? nullptr : &probe->name;
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
  return impl_->deny_all;
}

PolicySet::PolicySet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

PolicySet::~PolicySet() = default;

}  // namespace postern::policy
