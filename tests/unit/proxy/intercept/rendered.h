// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/intercept/rules.h"

namespace postern::intercept {

// A rendering, taken apart.
class Rendered {
 public:
  explicit Rendered(const InterceptConfig& config) : text_(RenderUp(config).value()) {
    document_ = nlohmann::json::parse(text_);
    state_ = ParseTable(text_, config.name).value();
  }

  const nlohmann::json& commands() const { return document_["nftables"]; }
  const TableState& state() const { return state_; }
  const std::string& text() const { return text_; }

  // The "expr" of the first rule of that chain with that comment; null without one.
  nlohmann::json Rule(std::string_view chain, std::string_view comment) const {
    for (const nlohmann::json& command : commands()) {
      if (!command.contains("add") || !command["add"].contains("rule"))
        continue;
      const nlohmann::json& rule = command["add"]["rule"];
      if (rule["chain"] == chain && rule["comment"] == comment)
        return rule["expr"];
    }
    return nullptr;
  }

  nlohmann::json Chain(std::string_view name) const {
    for (const nlohmann::json& command : commands()) {
      if (!command.contains("add") || !command["add"].contains("chain"))
        continue;
      if (command["add"]["chain"]["name"] == name)
        return command["add"]["chain"];
    }
    return nullptr;
  }

  std::vector<std::string> Comments(std::string_view chain) const {
    std::vector<std::string> comments;
    for (const RuleState& rule : state_.rules) {
      if (rule.chain == chain)
        comments.push_back(rule.comment);
    }
    return comments;
  }

 private:
  std::string text_;
  nlohmann::json document_;
  TableState state_;
};

inline InterceptConfig Guarded() {
  InterceptConfig config;
  config.proxy_uids = {901};
  return config;
}

}  // namespace postern::intercept
