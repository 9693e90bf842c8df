// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/command.h"
#include "cli/intercept_options.h"
#include "common/base/strings.h"
#include "proxy/intercept/existing.h"
#include "proxy/intercept/nft.h"
#include "proxy/intercept/rules.h"

namespace postern::cli {
namespace {

using intercept::InterceptConfig;

struct UpOptions {
  RuleOptions rules;
  bool probe = false, dry_run = false, kill = false;
};

void AddUpOptions(CLI::App* up, UpOptions* o) {
  AddRuleOptions(up, &o->rules);
  up->add_flag("--probe", o->probe,
               "then open a connection to 192.0.2.1 and see that it is caught");
  up->add_flag(
      "--kill-existing", o->kill,
      "then end the connections to and from other hosts that were open before and that the "
      "rules would take");
  up->add_flag("--dry-run", o->dry_run,
               "print the input for nft (-j -f -; with control groups -f -) and change nothing");
}

// Nothing proved is worth a word, not a failure; not caught is one.
absl::Status Probe(const InterceptConfig& config, Context& context) {
  const absl::Status probed = intercept::ProbeOutbound(config);
  if (absl::IsUnavailable(probed)) {
    context.err << "postern: --probe: " << base::Message(probed) << "\n";
    return absl::OkStatus();
  }
  if (probed.ok()) {
    context.err << "postern: the probe's connection was caught\n";
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(base::StrCat("--probe: ", base::Message(probed),
                                                    " The rules stay; `postern intercept down` "
                                                    "removes them"));
}

std::string Connections(size_t count) {
  return base::StrCat(count, count == 1 ? " connection" : " connections");
}

// The rules are in force by now, whatever comes of this.
absl::Status KillExisting(const InterceptConfig& config, Context& context) {
  const absl::StatusOr<size_t> ended = intercept::KillExistingConnections(config);
  if (!ended.ok()) {
    return absl::FailedPreconditionError(
        base::StrCat("--kill-existing: ", base::Message(ended.status()),
                     ". The rules are in force; connections from before stay as they are until "
                     "their applications are restarted"));
  }
  context.err << "postern: " << Connections(*ended) << " from before "
              << (*ended == 1 ? "was" : "were") << " ended\n";
  return absl::OkStatus();
}

void CountExisting(const InterceptConfig& config, Context& context) {
  if (const size_t open = intercept::CountExistingConnections(config); open > 0) {
    context.err
        << "postern: " << Connections(open) << " to other hosts were open before and "
        << (config.fail_closed
                ? "what the rules would take of them is dropped from now on (--fail-closed; "
                  "--kill-existing ends it at once)\n"
                : "stay as they are (--kill-existing ends what the rules would take)\n");
  }
}

absl::Status Up(const UpOptions& options, Context& context) {
  absl::StatusOr<InterceptConfig> config = RulesFrom(options.rules);
  if (!config.ok())
    return config.status();
  if (absl::Status status = options.kill ? intercept::CheckKillExisting(*config) : absl::OkStatus();
      !status.ok()) {
    return status;
  }
  if (options.dry_run) {
    absl::StatusOr<std::string> rules = intercept::RenderedForNft(*config);
    if (!rules.ok())
      return rules.status();
    context.out << *rules << "\n";
    return absl::OkStatus();
  }
  if (absl::Status status = intercept::ApplyRules(*config); !status.ok())
    return status;
  context.err << "postern: rules are in force (table inet " << intercept::TableName(config->name)
              << ") and were read back\n";
  absl::Status ended;
  if (options.kill) {
    ended = KillExisting(*config, context);
  } else {
    CountExisting(*config, context);
  }
  if (absl::Status probed = options.probe ? Probe(*config, context) : absl::OkStatus();
      !probed.ok()) {
    return probed;
  }
  return ended;
}

absl::Status Down(const std::string& name, Context& context) {
  if (absl::Status status = intercept::RemoveRules(name); !status.ok())
    return status;
  context.err << "postern: table inet " << intercept::TableName(name) << " is gone\n";
  return absl::OkStatus();
}

void ShowAsText(const intercept::TableState& state, std::ostream& out) {
  for (const std::string& chain : state.chains) {
    out << chain << "\n";
    for (const intercept::RuleState& rule : state.rules) {
      if (rule.chain != chain)
        continue;
      out << "  " << rule.comment;
      if (rule.counted)
        out << "  [" << rule.packets << " packets]";
      out << "\n";
    }
  }
}

void ShowAsJson(const intercept::TableState& state, const std::string& table, std::ostream& out) {
  nlohmann::json rules = nlohmann::json::array();
  for (const intercept::RuleState& rule : state.rules) {
    nlohmann::json entry = {{"chain", rule.chain}, {"rule", rule.comment}};
    if (rule.counted)
      entry["packets"] = rule.packets;
    rules.push_back(std::move(entry));
  }
  out << nlohmann::json({{"table", table}, {"rules", std::move(rules)}}).dump(2) << "\n";
}

absl::Status Show(const std::string& name, const std::string& output, Context& context) {
  absl::StatusOr<std::optional<intercept::TableState>> state = intercept::ReadRules(name);
  if (!state.ok())
    return state.status();
  const std::string table = intercept::TableName(name);
  if (!state->has_value()) {
    return absl::NotFoundError(base::StrCat("no rules are in force (no table inet ", table,
                                            "); `postern intercept up` makes them"));
  }
  if (output == "json") {
    ShowAsJson(**state, table, context.out);
  } else {
    context.out << "table inet " << table << "\n";
    ShowAsText(**state, context.out);
  }
  return absl::OkStatus();
}

}  // namespace

void AddIntercept(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("intercept", "take over the application's connections");
  noun->require_subcommand(1);

  CLI::App* up = noun->add_subcommand("up", "put the rules in force, replacing earlier ones");
  auto options = std::make_shared<UpOptions>();
  AddUpOptions(up, options.get());
  OnSelected(up, context, [options](Context& c) { return Up(*options, c); });

  CLI::App* down = noun->add_subcommand("down", "remove the rules; fine when there are none");
  auto down_name = std::make_shared<std::string>();
  down->add_option("--name", *down_name, "the second proxy's rules");
  OnSelected(down, context, [down_name](Context& c) { return Down(*down_name, c); });

  CLI::App* show = noun->add_subcommand("show", "what is in force, and what it counted");
  auto show_name = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>("text");
  show->add_option("--name", *show_name, "the second proxy's rules");
  AddOutputOption(show, output.get(), {"text", "json"});
  OnSelected(show, context,
             [show_name, output](Context& c) { return Show(*show_name, *output, c); });

  AddDiff(noun, context);
  AddWatch(noun, context);
}

}  // namespace postern::cli
