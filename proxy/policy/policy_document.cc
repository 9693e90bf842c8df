// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/policy_document.h"

#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/config/yaml_tree.h"
#include "proxy/policy/rule_fields.h"

namespace postern::policy {
namespace {

using config::YamlField;
using config::YamlNode;

absl::StatusOr<config::PeerMode> ReadMode(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto mode = config::ParsePeerMode(*text);
  return mode.ok() ? mode : field.Fault(base::Message(mode.status()));
}

template <typename Enum>
using Words = std::span<const std::pair<std::string_view, Enum>>;

constexpr std::array<std::pair<std::string_view, Action>, 2> kActions = {
    {{"ALLOW", Action::kAllow}, {"DENY", Action::kDeny}}};
constexpr std::array<std::pair<std::string_view, Enforcement>, 2> kEnforcements = {
    {{"enforce", Enforcement::kEnforce}, {"audit", Enforcement::kAudit}}};
constexpr std::array<std::pair<std::string_view, DefaultAccess>, 4> kDefaults = {
    {{"same-trust-domain", DefaultAccess::kSameTrustDomain},
     {"any-identity", DefaultAccess::kAnyIdentity},
     {"everybody", DefaultAccess::kEverybody},
     {"nobody", DefaultAccess::kNobody}}};

template <typename Enum>
absl::StatusOr<Enum> ReadWord(const YamlField& field, Words<Enum> words) {
  std::string known;
  for (const auto& [text, value] : words) {
    if (field.node().text == text) {
      return value;
    }
    base::StrAppend(known, known.empty() ? "" : ", ", text);
  }
  return field.Fault(
      base::StrCat("'", base::Printable(field.node().text, 64), "' is not one of: ", known));
}

absl::StatusOr<Enforcement> ReadEnforcement(const YamlField& spec) {
  const auto field = spec.Find("mode");
  return field ? ReadWord<Enforcement>(*field, kEnforcements) : Enforcement::kEnforce;
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

// What every document has: its name, its place, whom it is for.
template <typename Kind>
absl::StatusOr<Kind> ReadHead(const config::Document& document, const YamlField& spec) {
  Kind made;
  made.name = document.name;
  made.place = base::StrCat(document.file_name, ":", document.root.line);
  auto workload = ReadWorkload(spec);
  if (!workload.ok()) {
    return workload.status();
  }
  made.workload = *std::move(workload);
  return made;
}

absl::StatusOr<PolicyDocument> ReadAuthorization(const config::Document& document,
                                                 const YamlField& spec) {
  if (auto status = spec.ExpectOnly({"workload", "action", "mode", "rules"}); !status.ok()) {
    return status;
  }
  auto head = ReadHead<AuthorizationDocument>(document, spec);
  if (!head.ok()) {
    return head.status();
  }
  AuthorizationDocument policy = *std::move(head);
  const auto word = spec.Get("action");
  if (!word.ok()) {
    return word.status();
  }
  const auto action = ReadWord<Action>(*word, kActions);
  if (!action.ok()) {
    return action.status();
  }
  policy.action = *action;
  const auto enforcement = ReadEnforcement(spec);
  if (!enforcement.ok()) {
    return enforcement.status();
  }
  policy.enforcement = *enforcement;
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
  if (auto status = spec.ExpectOnly({"workload", "default", "ports"}); !status.ok()) {
    return status;
  }
  auto head = ReadHead<PeerModeDocument>(document, spec);
  if (!head.ok()) {
    return head.status();
  }
  PeerModeDocument modes = *std::move(head);
  if (const auto field = spec.Find("default")) {
    const auto mode = ReadMode(*field);
    if (!mode.ok()) {
      return mode.status();
    }
    if (config::IsOnlyForOnePort(*mode)) {
      return field->Fault(
          base::StrCat("'", config::Token(*mode), "' is said of single ports; put it under ports"));
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

absl::StatusOr<PolicyDocument> ReadDefault(const config::Document& document,
                                           const YamlField& spec) {
  if (auto status = spec.ExpectOnly({"workload", "default", "mode"}); !status.ok()) {
    return status;
  }
  auto head = ReadHead<DefaultDocument>(document, spec);
  if (!head.ok()) {
    return head.status();
  }
  DefaultDocument made = *std::move(head);
  const auto word = spec.Get("default");
  if (!word.ok()) {
    return word.status();
  }
  const auto access = ReadWord<DefaultAccess>(*word, kDefaults);
  if (!access.ok()) {
    return access.status();
  }
  made.access = *access;
  const auto enforcement = ReadEnforcement(spec);
  if (!enforcement.ok()) {
    return enforcement.status();
  }
  made.enforcement = *enforcement;
  return made;
}

absl::StatusOr<PolicyDocument> ReadProbe(const config::Document& document, const YamlField& spec) {
  if (auto status = spec.ExpectOnly({"workload", "ports", "cidrs"}); !status.ok()) {
    return status;
  }
  auto head = ReadHead<ProbeDocument>(document, spec);
  if (!head.ok()) {
    return head.status();
  }
  ProbeDocument made = *std::move(head);
  // Both are needed: a port alone would be open to everybody, an address alone everywhere.
  for (const std::string_view needed : {"ports", "cidrs"}) {
    if (const auto field = spec.Get(needed); !field.ok()) {
      return field.status();
    }
  }
  absl::Status status = ReadListInto(
      spec, "ports", [](const YamlField& port) { return port.Port(); }, made.ports);
  if (status.ok()) {
    status = ReadListInto(spec, "cidrs", config::ReadCidr, made.cidrs);
  }
  if (!status.ok()) {
    return status;
  }
  return made;
}

using Reader = absl::StatusOr<PolicyDocument> (*)(const config::Document& document,
                                                  const YamlField& spec);
constexpr std::array<std::pair<std::string_view, Reader>, 4> kKinds = {
    {{"AuthorizationPolicy", ReadAuthorization},
     {"PeerMode", ReadPeerMode},
     {"DefaultPolicy", ReadDefault},
     {"ProbeExemption", ReadProbe}}};

absl::StatusOr<PolicyDocument> ReadDocument(const config::Document& document) {
  std::string known;
  for (const auto& [kind, read] : kKinds) {
    if (document.kind == kind) {
      return read(document, document.Spec());
    }
    base::StrAppend(known, known.empty() ? "" : ", ", kind);
  }
  return YamlField(document.root, "", document.file_name)
      .Find("kind")
      ->Fault(base::StrCat("is '", base::Printable(document.kind, 64),
                           "'; documents of policy are: ", known));
}

}  // namespace

std::string RuleLabel(std::string_view document, size_t index) {
  return base::StrCat(document, " / rule ", index + 1);
}

absl::StatusOr<std::vector<PolicyDocument>> ReadPolicyDocuments(const NamedYaml& source) {
  const auto documents = config::ReadDocuments(source.yaml, source.name);
  if (!documents.ok()) {
    return documents.status();
  }
  std::vector<PolicyDocument> policies;
  for (const config::Document& document : *documents) {
    absl::StatusOr<PolicyDocument> policy = ReadDocument(document);
    if (!policy.ok()) {
      return policy.status();
    }
    policies.push_back(*std::move(policy));
  }
  return policies;
}

}  // namespace postern::policy
