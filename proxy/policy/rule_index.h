// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/ip.h"
#include "common/base/range_map.h"
#include "common/base/strings.h"
#include "proxy/policy/policy_document.h"

namespace postern::policy {

// The rules of one action, compiled so that the number of rules hardly matters: by whom (exact
// identity, prefix, trust domain, address range), then by port or tunnel. What one rule demands
// beyond these keys is a condition, checked last. Immutable once filled; safe to read from any
// thread.
class RuleIndex {
 public:
  // Rules are added in the order in which they are to be named; `label` is what Match returns.
  // False, with nothing promised about the index, once it would hold more than a million entries.
  [[nodiscard]] bool Add(const Rule& rule, std::string label);

  // The label of the first rule, in the order of adding, that matches; null if none does.
  const std::string* Match(const ConnectionFacts& facts) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Condition {
    std::vector<base::Cidr> cidrs;     // empty: from anywhere
    std::vector<std::string> tunnels;  // empty: through any
    bool Holds(const ConnectionFacts& facts) const;
  };
  // A rule under one key. Lists of them are in ascending order of `rule` and end at the first
  // without a condition, as none behind it could be the first to match.
  struct Clause {
    uint32_t rule = 0;
    uint32_t condition = kNone;
  };
  using Clauses = std::vector<Clause>;
  struct Targets {
    Clauses everything;
    absl::flat_hash_map<uint16_t, Clauses> ports;
    absl::flat_hash_map<std::string, Clauses> tunnels;
  };

  void AddFrom(const FromItem& from, const ToItem& to, uint32_t rule);
  void AddTo(Targets& targets, const ToItem& to, Clause clause);
  void Append(Clauses& clauses, Clause clause);
  void Judge(const Targets& targets, const ConnectionFacts& facts, uint32_t& best) const;
  void JudgeList(const Clauses& clauses, const ConnectionFacts& facts, uint32_t& best) const;
  void JudgeIdentity(const x509::SpiffeId& id, const ConnectionFacts& facts, uint32_t& best) const;

  std::vector<std::string> labels_;
  std::vector<Condition> conditions_;
  size_t entries_ = 0;

  Targets everybody_;
  Targets unauthenticated_;
  absl::flat_hash_map<std::string, Targets> ids_;
  absl::flat_hash_map<std::string, Targets> prefixes_;  // with their trailing slash
  size_t longest_prefix_ = 0;
  absl::flat_hash_map<std::string, Targets> trust_domains_;
  base::RangeMap<Targets> ranges_;
};

}  // namespace postern::policy
