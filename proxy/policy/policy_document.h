// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "common/x509/spiffe_id.h"
#include "proxy/config/proxy_config.h"
#include "proxy/policy/policy_set.h"

namespace postern::policy {

// The policy documents as they were written, checked one by one. Values; PolicySet compiles them.

// All that is given must hold; at least one thing is given.
struct FromItem {
  std::vector<x509::SpiffeIdPattern> ids;
  std::vector<x509::TrustDomain> trust_domains;
  bool unauthenticated = false;
  std::vector<base::Cidr> cidrs;
};

struct ToItem {
  std::vector<uint16_t> ports;
  std::vector<std::string> tunnels;
};

// Any of `from` and any of `to`; an empty list means whoever or whatever.
struct Rule {
  std::vector<FromItem> from;
  std::vector<ToItem> to;
  int line = 0;
};

// How a rule is named wherever it has decided: the log, the access record, `postern policy`.
std::string RuleLabel(std::string_view document, size_t index);

enum class Action : uint8_t { kAllow, kDeny };
// Audit: what it would refuse is counted and recorded, and passes.
enum class Enforcement : uint8_t { kEnforce, kAudit };

struct AuthorizationDocument {
  std::string name;
  std::string place;  // FILE:LINE, for errors over several documents
  std::optional<x509::SpiffeIdPattern> workload;
  Action action = Action::kAllow;
  Enforcement enforcement = Enforcement::kEnforce;
  std::vector<Rule> rules;
};

// Who is let in where no ALLOW document applies.
enum class DefaultAccess : uint8_t { kSameTrustDomain, kAnyIdentity, kEverybody, kNobody };

struct DefaultDocument {
  std::string name;
  std::string place;
  std::optional<x509::SpiffeIdPattern> workload;
  DefaultAccess access = DefaultAccess::kSameTrustDomain;
  Enforcement enforcement = Enforcement::kEnforce;
};

struct PeerModeDocument {
  std::string name;
  std::string place;
  std::optional<x509::SpiffeIdPattern> workload;
  std::optional<config::PeerMode> default_mode;
  std::map<uint16_t, config::PeerMode> ports;
};

// Plaintext from these addresses to these ports is let in whatever mode and rules say.
struct ProbeDocument {
  std::string name;
  std::string place;
  std::optional<x509::SpiffeIdPattern> workload;
  std::vector<uint16_t> ports;
  std::vector<base::Cidr> cidrs;
};

using PolicyDocument =
    std::variant<AuthorizationDocument, PeerModeDocument, DefaultDocument, ProbeDocument>;

// InvalidArgument: "NAME:LINE: field: what is wrong". Pure.
absl::StatusOr<std::vector<PolicyDocument>> ReadPolicyDocuments(const NamedYaml& source);

}  // namespace postern::policy
