// SPDX-License-Identifier: Apache-2.0
#include "cli/policy_book.h"

#include <utility>
#include <variant>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "proxy/policy/policy_document.h"

namespace postern::cli {
namespace {

using policy::ConnectionFacts;
using policy::PolicySet;

struct Target {
  x509::SpiffeId workload;
  uint16_t port = 0;
};

absl::Status Wrong(std::string_view part, const absl::Status& status) {
  return absl::InvalidArgumentError(base::StrCat(part, ": ", base::Message(status)));
}

// "spiffe://td/db:5432": a SPIFFE ID holds no colon behind its scheme.
absl::StatusOr<Target> ParseTarget(const std::string& text) {
  const size_t colon = text.rfind(':');
  const auto port = base::ParsePort(std::string_view(text).substr(colon + 1));
  if (colon == std::string::npos || !port.has_value()) {
    return absl::InvalidArgumentError(base::StrCat("to: '", base::Printable(text),
                                                   "': write WORKLOAD:PORT, as in "
                                                   "spiffe://example.org/db:5432"));
  }
  absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(text.substr(0, colon));
  if (!id.ok()) {
    return Wrong("to", id.status());
  }
  return Target{*std::move(id), *port};
}

absl::StatusOr<ConnectionFacts> ReadFacts(const PolicyQuestion& question, uint16_t port) {
  ConnectionFacts facts;
  facts.destination_port = port;
  facts.tunnel = question.tunnel;
  if (question.from != "none") {
    absl::StatusOr<x509::SpiffeId> source = x509::SpiffeId::Parse(question.from);
    if (!source.ok()) {
      return Wrong("from", source.status());
    }
    facts.source = *std::move(source);
  }
  if (!question.source_ip.empty()) {
    absl::StatusOr<base::IpAddress> ip = base::IpAddress::Parse(question.source_ip);
    if (!ip.ok()) {
      return Wrong("source-ip", ip.status());
    }
    facts.source_ip = *ip;
  }
  return facts;
}

}  // namespace

absl::StatusOr<PolicyBook> PolicyBook::Read(const std::vector<std::string>& files) {
  PolicyBook book;
  for (const std::string& file : files) {
    absl::StatusOr<std::string> yaml = base::ReadFile(file);
    if (!yaml.ok()) {
      return absl::InvalidArgumentError(yaml.status().message());
    }
    book.documents_.push_back({file, *std::move(yaml)});
  }
  if (absl::Status noted = book.NotePlaces(); !noted.ok()) {
    return noted;
  }
  return book;
}

absl::Status PolicyBook::NotePlaces() {
  for (const policy::NamedYaml& source : documents_) {
    const auto documents = policy::ReadPolicyDocuments(source);
    if (!documents.ok()) {
      return documents.status();
    }
    for (const policy::PolicyDocument& document : *documents) {
      if (const auto* rules = std::get_if<policy::AuthorizationDocument>(&document)) {
        for (size_t i = 0; i < rules->rules.size(); ++i) {
          places_.emplace(policy::RuleLabel(rules->name, i),
                          base::StrCat(source.name, ":", rules->rules[i].line));
        }
      } else if (const auto* otherwise = std::get_if<policy::DefaultDocument>(&document)) {
        places_.emplace(otherwise->name + " / default", otherwise->place);
      } else if (const auto* probe = std::get_if<policy::ProbeDocument>(&document)) {
        places_.emplace(probe->name + " / probe exemption", probe->place);
      }
    }
  }
  return absl::OkStatus();
}

std::string PolicyBook::PlaceOf(const std::string& rule) const {
  auto found = places_.find(rule);
  if (found == places_.end()) {
    found = places_.find(rule.substr(0, rule.find(": ")));  // "NAME / default: nobody"
  }
  return found == places_.end() ? std::string() : found->second;
}

absl::StatusOr<std::shared_ptr<const PolicySet>> PolicyBook::SetOf(const x509::SpiffeId& workload) {
  if (documents_.empty()) {
    return PolicySet::SameTrustDomain(workload);
  }
  const auto known = sets_.find(std::string(workload.uri()));
  if (known != sets_.end()) {
    return known->second;
  }
  absl::StatusOr<std::shared_ptr<const PolicySet>> set =
      PolicySet::Compile(documents_, workload, 0);
  if (set.ok()) {
    sets_.emplace(std::string(workload.uri()), *set);
  }
  return set;
}

absl::StatusOr<PolicyAnswer> PolicyBook::Answer(const PolicyQuestion& question) {
  const absl::StatusOr<Target> target = ParseTarget(question.to);
  if (!target.ok()) {
    return target.status();
  }
  const absl::StatusOr<ConnectionFacts> facts = ReadFacts(question, target->port);
  if (!facts.ok()) {
    return facts.status();
  }
  const auto set = SetOf(target->workload);
  if (!set.ok()) {
    return set.status();
  }
  PolicyAnswer answer;
  if (question.tunnel.empty()) {
    answer.mode = (*set)->ModeOf(target->port);
    if (!answer.mode) {
      answer.mode = question.peer_mode;
    }
  }
  answer.decision =
      answer.mode ? (*set)->AuthorizeOn(*answer.mode, *facts) : (*set)->Authorize(*facts);
  return answer;
}

}  // namespace postern::cli
