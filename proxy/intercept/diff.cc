// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/diff.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/base/strings.h"
#include "proxy/intercept/nft.h"

namespace postern::intercept {
namespace {

using nlohmann::json;

std::string DescribeChain(const json& chain, Depth depth) {
  std::string text = base::StrCat("chain ", chain.value("name", ""));
  if (depth == Depth::kContents && chain.contains("hook")) {
    base::StrAppend(text, ": type ", chain.value("type", ""), " hook ", chain.value("hook", ""),
                    " priority ", chain.value("prio", json()).dump(), " policy ",
                    chain.value("policy", ""));
  }
  return text;
}

std::string DescribeRule(const json& rule, Depth depth) {
  std::string text =
      base::StrCat("chain ", rule.value("chain", ""), ": '", rule.value("comment", ""), "'");
  if (depth == Depth::kComments) {
    return text;
  }
  for (json statement : rule.value("expr", json::array())) {
    if (statement.contains("counter")) {
      statement["counter"] = nullptr;  // what it has counted
    }
    base::StrAppend(text, " ", statement.dump());
  }
  return text;
}

struct Lines {
  std::vector<std::string> chains;  // sorted: their order means nothing
  std::vector<std::string> rules;   // by chain, then in order
};

absl::StatusOr<Lines> Describe(std::string_view listing, const std::string& name, Depth depth) {
  const json document = json::parse(listing, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("nftables") || !document["nftables"].is_array()) {
    return absl::InvalidArgumentError("this is not what `nft -j` prints");
  }
  Lines lines;
  std::vector<std::pair<std::string, std::string>> rules;
  const std::string table = TableName(name);
  for (const json& entry : document["nftables"]) {
    const json& object = entry.contains("add") ? entry["add"] : entry;
    if (object.contains("chain") && object["chain"].value("table", "") == table) {
      lines.chains.push_back(DescribeChain(object["chain"], depth));
    } else if (object.contains("rule") && object["rule"].value("table", "") == table) {
      rules.emplace_back(object["rule"].value("chain", ""), DescribeRule(object["rule"], depth));
    } else if (object.contains("set") || object.contains("map")) {
      lines.chains.push_back(base::StrCat("an object of somebody else: ", object.dump()));
    }
  }
  std::sort(lines.chains.begin(), lines.chains.end());
  std::stable_sort(rules.begin(), rules.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [chain, text] : rules) {
    lines.rules.push_back(std::move(text));
  }
  return lines;
}

// The shortest way from one list to the other, by the longest common subsequence.
void AddDifferences(const std::vector<std::string>& wanted, const std::vector<std::string>& found,
                    std::vector<std::string>* out) {
  const size_t rows = wanted.size();
  const size_t columns = found.size();
  std::vector<std::vector<size_t>> common(rows + 1, std::vector<size_t>(columns + 1, 0));
  for (size_t i = rows; i-- > 0;) {
    for (size_t j = columns; j-- > 0;) {
      common[i][j] = wanted[i] == found[j] ? common[i + 1][j + 1] + 1
                                           : std::max(common[i + 1][j], common[i][j + 1]);
    }
  }
  size_t i = 0;
  size_t j = 0;
  while (i < rows || j < columns) {
    if (i < rows && j < columns && wanted[i] == found[j]) {
      ++i;
      ++j;
    } else if (j == columns || (i < rows && common[i + 1][j] >= common[i][j + 1])) {
      out->push_back(base::StrCat("- ", wanted[i++]));
    } else {
      out->push_back(base::StrCat("+ ", found[j++]));
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<std::string>> DiffListings(std::string_view wanted,
                                                      std::string_view found,
                                                      const std::string& name, Depth depth) {
  const absl::StatusOr<Lines> want = Describe(wanted, name, depth);
  const absl::StatusOr<Lines> have = Describe(found, name, depth);
  if (!want.ok() || !have.ok()) {
    return want.ok() ? have.status() : want.status();
  }
  std::vector<std::string> differences;
  AddDifferences(want->chains, have->chains, &differences);
  AddDifferences(want->rules, have->rules, &differences);
  return differences;
}

absl::StatusOr<Expectation> Expectation::Of(const InterceptConfig& config) {
  absl::StatusOr<std::string> listing = ListAsWanted(config);
  if (listing.ok()) {
    return Expectation(config, *std::move(listing), Depth::kContents);
  }
  if (!absl::IsPermissionDenied(listing.status())) {
    return listing.status();
  }
  absl::StatusOr<std::string> rendered = RenderUp(config);
  if (!rendered.ok()) {
    return rendered.status();
  }
  return Expectation(config, *std::move(rendered), Depth::kComments);
}

absl::StatusOr<std::vector<std::string>> Expectation::Differences() const {
  const absl::StatusOr<std::optional<std::string>> found = ListRules(config_.name);
  if (!found.ok()) {
    return found.status();
  }
  std::vector<std::string> differences;
  if (!found->has_value()) {
    differences.push_back(base::StrCat("- table inet ", TableName(config_.name)));
  } else {
    absl::StatusOr<std::vector<std::string>> rules =
        DiffListings(listing_, **found, config_.name, depth_);
    if (!rules.ok()) {
      return rules.status();
    }
    differences = *std::move(rules);
  }
  if (config_.mode == RuleMode::kTproxy) {
    const absl::StatusOr<std::vector<std::string>> missing = MissingOfPolicyRoute(RouteOf(config_));
    if (!missing.ok()) {
      return missing.status();
    }
    for (const std::string& one : *missing) {
      differences.push_back(base::StrCat("- ", one));
    }
  }
  return differences;
}

}  // namespace postern::intercept
