// SPDX-License-Identifier: Apache-2.0
#include <grp.h>
#include <pwd.h>

#include <charconv>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/command.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/intercept/existing.h"
#include "proxy/intercept/nft.h"
#include "proxy/intercept/rules.h"

namespace postern::cli {
namespace {

using intercept::InterceptConfig;

// What the command line says, as text; checked as a whole by Config().
struct UpOptions {
  std::string mode = "redirect";
  std::string name;
  bool no_inbound = false, no_outbound = false, probe = false, dry_run = false, kill = false;
  uint16_t inbound_port = 15006, outbound_port = 15001;
  std::vector<uint16_t> own_ports;
  std::vector<std::string> proxy_uids, proxy_gids, app_uids, app_gids, exclude_uids, exclude_gids;
  uint32_t proxy_mark = 0;
  std::vector<std::string> inbound_ports, outbound_ports, no_inbound_ports, no_outbound_ports;
  std::vector<std::string> cidrs, no_cidrs, no_source_cidrs, no_interfaces;
};

void AddUpOptions(CLI::App* up, UpOptions* o) {
  up->add_option("--mode", o->mode, "redirect (tproxy is not there yet)")
      ->check(CLI::IsMember({"redirect", "tproxy"}))
      ->capture_default_str();
  up->add_option("--name", o->name, "a second proxy's rules: table inet postern_NAME");
  up->add_option("--proxy-uid", o->proxy_uids,
                 "loop guard: user (name or number) that runs postern-proxy; repeatable");
  up->add_option("--proxy-gid", o->proxy_gids, "loop guard: group of postern-proxy; repeatable");
  up->add_option("--proxy-mark", o->proxy_mark, "loop guard: the proxy's --mark");
  up->add_option("--inbound-port", o->inbound_port, "the proxy's --inbound-port")
      ->capture_default_str();
  up->add_option("--outbound-port", o->outbound_port, "the proxy's --outbound-port")
      ->capture_default_str();
  up->add_option("--own-port", o->own_ports,
                 "another port of the proxy, never taken (15000 and 15020 are known); repeatable");
  up->add_flag("--no-inbound", o->no_inbound, "leave inbound connections alone");
  up->add_flag("--no-outbound", o->no_outbound, "leave outbound connections alone");
  up->add_option("--include-inbound-port", o->inbound_ports,
                 "take these ports (N or N-M) of this host only; repeatable");
  up->add_option("--include-outbound-port", o->outbound_ports,
                 "take connections to these ports only; repeatable");
  up->add_option("--exclude-inbound-port", o->no_inbound_ports,
                 "leave these ports alone; repeatable");
  up->add_option("--exclude-outbound-port", o->no_outbound_ports,
                 "leave connections to these ports alone; repeatable");
  up->add_option("--include-cidr", o->cidrs, "take connections to these ranges only; repeatable");
  up->add_option("--exclude-cidr", o->no_cidrs,
                 "leave connections to these ranges alone; repeatable");
  up->add_option("--exclude-source-cidr", o->no_source_cidrs,
                 "leave connections from these ranges alone; repeatable");
  up->add_option("--app-uid", o->app_uids,
                 "take outbound connections of these users only, and treat those of others on this "
                 "host to the workload's ports as inbound; repeatable");
  up->add_option("--app-gid", o->app_gids, "the same by group; repeatable");
  up->add_option("--exclude-uid", o->exclude_uids, "leave these users alone; repeatable");
  up->add_option("--exclude-gid", o->exclude_gids, "leave these groups alone; repeatable");
  up->add_option("--exclude-interface", o->no_interfaces, "leave this interface alone; repeatable");
  up->add_flag("--probe", o->probe,
               "then open a connection to 192.0.2.1 and see that it is caught");
  up->add_flag(
      "--kill-existing", o->kill,
      "then end the connections to and from other hosts that were open before and that the "
      "rules would take");
  up->add_flag("--dry-run", o->dry_run, "print the input for `nft -j -f -` and change nothing");
}

std::optional<uint32_t> ParseId(std::string_view text) {
  uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  // The last number means "none" to the kernel.
  if (!whole || id == std::numeric_limits<uint32_t>::max())
    return std::nullopt;
  return id;
}

absl::StatusOr<uid_t> UserId(const std::string& text) {
  if (const std::optional<uint32_t> id = ParseId(text))
    return *id;
  if (const passwd* entry = getpwnam(text.c_str()))
    return entry->pw_uid;
  return absl::InvalidArgumentError("is no user of this machine and no number");
}

absl::StatusOr<gid_t> GroupId(const std::string& text) {
  if (const std::optional<uint32_t> id = ParseId(text))
    return *id;
  if (const group* entry = getgrnam(text.c_str()))
    return entry->gr_gid;
  return absl::InvalidArgumentError("is no group of this machine and no number");
}

// Turns the values of one flag into `target`; the error names the flag and the value.
template <typename Value, typename Parse>
absl::Status ParseAll(std::string_view flag, const std::vector<std::string>& texts, Parse parse,
                      std::vector<Value>* target) {
  for (const std::string& text : texts) {
    absl::StatusOr<Value> value = parse(text);
    if (!value.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat(flag, " '", base::Printable(text), "': ", base::Message(value.status())));
    }
    target->push_back(*std::move(value));
  }
  return absl::OkStatus();
}

absl::Status ParseIdentities(const UpOptions& o, InterceptConfig* config) {
  absl::Status status;
  status.Update(ParseAll("--proxy-uid", o.proxy_uids, UserId, &config->proxy_uids));
  status.Update(ParseAll("--proxy-gid", o.proxy_gids, GroupId, &config->proxy_gids));
  status.Update(ParseAll("--app-uid", o.app_uids, UserId, &config->app_uids));
  status.Update(ParseAll("--app-gid", o.app_gids, GroupId, &config->app_gids));
  status.Update(ParseAll("--exclude-uid", o.exclude_uids, UserId, &config->exclude_uids));
  status.Update(ParseAll("--exclude-gid", o.exclude_gids, GroupId, &config->exclude_gids));
  return status;
}

absl::Status ParseTargets(const UpOptions& o, InterceptConfig* c) {
  const auto port = [](const std::string& text) { return intercept::PortRange::Parse(text); };
  const auto cidr = [](const std::string& text) { return base::Cidr::Parse(text); };
  absl::Status status;
  status.Update(ParseAll("--include-inbound-port", o.inbound_ports, port, &c->inbound_ports));
  status.Update(ParseAll("--include-outbound-port", o.outbound_ports, port, &c->outbound_ports));
  status.Update(
      ParseAll("--exclude-inbound-port", o.no_inbound_ports, port, &c->exclude_inbound_ports));
  status.Update(
      ParseAll("--exclude-outbound-port", o.no_outbound_ports, port, &c->exclude_outbound_ports));
  status.Update(ParseAll("--include-cidr", o.cidrs, cidr, &c->outbound_cidrs));
  status.Update(ParseAll("--exclude-cidr", o.no_cidrs, cidr, &c->exclude_outbound_cidrs));
  status.Update(
      ParseAll("--exclude-source-cidr", o.no_source_cidrs, cidr, &c->exclude_inbound_cidrs));
  return status;
}

absl::StatusOr<InterceptConfig> Config(const UpOptions& o) {
  InterceptConfig config;
  config.mode = o.mode == "tproxy" ? intercept::RuleMode::kTproxy : intercept::RuleMode::kRedirect;
  config.name = o.name;
  config.inbound = !o.no_inbound;
  config.outbound = !o.no_outbound;
  config.inbound_port = o.inbound_port;
  config.outbound_port = o.outbound_port;
  config.own_ports = o.own_ports;
  config.proxy_mark = o.proxy_mark;
  config.exclude_interfaces = o.no_interfaces;
  if (absl::Status status = ParseIdentities(o, &config); !status.ok())
    return status;
  if (absl::Status status = ParseTargets(o, &config); !status.ok())
    return status;
  if (absl::Status status = intercept::CheckConfig(config); !status.ok())
    return status;
  if (absl::Status status = o.kill ? intercept::CheckKillExisting(config) : absl::OkStatus();
      !status.ok()) {
    return status;
  }
  return config;
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
    context.err << "postern: " << Connections(open)
                << " to other hosts were open before and stay as they are (--kill-existing ends "
                   "what the rules would take)\n";
  }
}

absl::Status Up(const UpOptions& options, Context& context) {
  absl::StatusOr<InterceptConfig> config = Config(options);
  if (!config.ok())
    return config.status();
  if (options.dry_run) {
    absl::StatusOr<std::string> rules = intercept::RenderUp(*config);
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
}

}  // namespace postern::cli
