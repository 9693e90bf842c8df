// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/nft_text.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "common/base/strings.h"

namespace postern::intercept {
namespace {

using nlohmann::json;

std::string Quoted(const json& text) {
  return base::StrCat("\"", text.get<std::string>(), "\"");
}

// A list as nft writes it, with `between`.
std::string Joined(const json& list, std::string_view between, std::string (*text)(const json&)) {
  std::vector<std::string> parts;
  for (const json& one : list) {
    parts.push_back(text(one));
  }
  return absl::StrJoin(parts, base::ToAbsl(between));
}

// Anything that stands beside an operator. Empty for what is not known.
std::string Expression(const json& value) {
  if (value.is_number()) {
    return value.dump();
  }
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_array()) {
    return base::StrCat("(", Joined(value, " | ", &Expression), ")");
  }
  const auto only = value.begin();
  const std::string& kind = only.key();
  const json& of = only.value();
  if (kind == "meta" || kind == "ct") {
    return base::StrCat(kind, " ", of["key"].get<std::string>());
  }
  if (kind == "payload") {
    return base::StrCat(of["protocol"].get<std::string>(), " ", of["field"].get<std::string>());
  }
  if (kind == "fib") {
    return base::StrCat("fib ", Joined(of["flags"], " . ", &Expression), " ",
                        of["result"].get<std::string>());
  }
  if (kind == "socket") {
    return base::StrCat("socket ", of["key"].get<std::string>(), " level ", of["level"].dump());
  }
  if (kind == "prefix") {
    return base::StrCat(of["addr"].get<std::string>(), "/", of["len"].dump());
  }
  if (kind == "range") {
    return Joined(of, "-", &Expression);
  }
  if (kind == "&" || kind == "|") {
    return base::StrCat(Expression(of[0]), " ", kind, " ", Expression(of[1]));
  }
  return "";
}

// The right side of a match on names (interfaces, control groups), which are quoted.
std::string Name(const json& value) {
  return Quoted(value);
}

std::string Match(const json& match) {
  const json& left = match["left"];
  const json& right = match["right"];
  const std::string op = match["op"].get<std::string>();
  const std::string left_text = Expression(left);
  const bool named =
      left.contains("socket") || left_text == "meta iifname" || left_text == "meta oifname";
  const auto text = named ? &Name : &Expression;
  const std::string right_text = right.is_object() && right.contains("set")
                                     ? base::StrCat("{ ", Joined(right["set"], ", ", text), " }")
                                     : text(right);
  // "==" and "in" go unsaid, but where the left side is a calculation.
  const bool said = op == "!=" || left.contains("&");
  return base::StrCat(left_text, " ", said ? base::StrCat(op, " ") : "", right_text);
}

// One statement of a rule; empty for what is not known.
std::string Statement(const json& statement) {
  const auto only = statement.begin();
  const std::string& kind = only.key();
  const json& of = only.value();
  if (kind == "match") {
    return Match(of);
  }
  if (kind == "mangle") {
    return base::StrCat(Expression(of["key"]), " set ", Expression(of["value"]));
  }
  if (kind == "redirect" || kind == "tproxy") {
    return base::StrCat(kind, " to :", of["port"].dump());
  }
  if (kind == "jump") {
    return base::StrCat("jump ", of["target"].get<std::string>());
  }
  return of.is_null() ? kind : "";  // counter, accept, drop, return
}

absl::StatusOr<std::string> AddRule(const json& rule) {
  std::string line = base::StrCat("add rule inet ", rule["table"].get<std::string>(), " ",
                                  rule["chain"].get<std::string>());
  for (const json& statement : rule["expr"]) {
    const std::string text = Statement(statement);
    if (text.empty()) {
      return absl::InvalidArgumentError(base::StrCat("no text for ", statement.dump()));
    }
    base::StrAppend(line, " ", text);
  }
  return base::StrCat(line, " comment ", Quoted(rule["comment"]));
}

std::string AddChain(const json& chain) {
  const std::string line = base::StrCat("add chain inet ", chain["table"].get<std::string>(), " ",
                                        chain["name"].get<std::string>());
  if (!chain.contains("hook")) {
    return line;
  }
  return base::StrCat(line, " { type ", chain["type"].get<std::string>(), " hook ",
                      chain["hook"].get<std::string>(), " priority ", chain["prio"].dump(),
                      "; policy ", chain["policy"].get<std::string>(), "; }");
}

}  // namespace

absl::StatusOr<std::string> CommandsAsText(std::string_view nft_json) {
  const json document = json::parse(nft_json, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("nftables")) {
    return absl::InvalidArgumentError("these are no commands for nft");
  }
  std::string text;
  for (const json& command : document["nftables"]) {
    const auto only = command.begin();
    const std::string& verb = only.key();
    const json& object = only.value();
    if (object.contains("rule")) {
      absl::StatusOr<std::string> rule = AddRule(object["rule"]);
      if (!rule.ok()) {
        return rule.status();
      }
      base::StrAppend(text, *rule, "\n");
    } else if (object.contains("chain")) {
      base::StrAppend(text, AddChain(object["chain"]), "\n");
    } else {
      base::StrAppend(text, verb, " table inet ", object["table"]["name"].get<std::string>(), "\n");
    }
  }
  return text;
}

}  // namespace postern::intercept
