// SPDX-License-Identifier: Apache-2.0
#include "cli/intercept_options.h"

#include <grp.h>
#include <pwd.h>

#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

using intercept::InterceptConfig;

void AddProxyOptions(CLI::App* command, RuleOptions* o) {
  command
      ->add_option("--mode", o->mode,
                   "redirect, or tproxy: the same, and the application sees the client's address "
                   "(the proxy needs --intercept tproxy and CAP_NET_ADMIN)")
      ->check(CLI::IsMember({"redirect", "tproxy"}))
      ->capture_default_str();
  command->add_option("--name", o->name, "a second proxy's rules: table inet postern_NAME");
  command->add_option("--proxy-uid", o->proxy_uids,
                      "loop guard: user (name or number) that runs postern-proxy; repeatable");
  command->add_option("--proxy-gid", o->proxy_gids,
                      "loop guard: group of postern-proxy; repeatable");
  command->add_option("--proxy-mark", o->proxy_mark, "loop guard: the proxy's --mark");
  command->add_option("--inbound-port", o->inbound_port, "the proxy's --inbound-port")
      ->capture_default_str();
  command->add_option("--outbound-port", o->outbound_port, "the proxy's --outbound-port")
      ->capture_default_str();
  command->add_option(
      "--own-port", o->own_ports,
      "another port of the proxy, never taken (15000 and 15020 are known); repeatable");
  command
      ->add_option("--pass-mark", o->pass_mark,
                   "--fail-closed: the bit of a connection's mark that lets it pass")
      ->capture_default_str();
  command
      ->add_option("--return-mark", o->return_mark,
                   "tproxy: the bit of marks that leads answers to clients back to the proxy")
      ->capture_default_str();
}

void AddTargetOptions(CLI::App* command, RuleOptions* o) {
  command->add_flag("--fail-closed", o->fail_closed,
                    "drop what would be taken and has not gone through the proxy, also of "
                    "connections that were open before; inbound with tproxy always does");
  command->add_flag("--no-inbound", o->no_inbound, "leave inbound connections alone");
  command->add_flag("--no-outbound", o->no_outbound, "leave outbound connections alone");
  command->add_option("--include-inbound-port", o->inbound_ports,
                      "take these ports (N or N-M) of this host only; repeatable");
  command->add_option("--include-outbound-port", o->outbound_ports,
                      "take connections to these ports only; repeatable");
  command->add_option("--exclude-inbound-port", o->no_inbound_ports,
                      "leave these ports alone; repeatable");
  command->add_option("--exclude-outbound-port", o->no_outbound_ports,
                      "leave connections to these ports alone; repeatable");
  command->add_option("--include-cidr", o->cidrs,
                      "take connections to these ranges only; repeatable");
  command->add_option("--exclude-cidr", o->no_cidrs,
                      "leave connections to these ranges alone; repeatable");
  command->add_option("--exclude-source-cidr", o->no_source_cidrs,
                      "leave connections from these ranges alone; repeatable");
}

void AddIdentityOptions(CLI::App* command, RuleOptions* o) {
  command->add_option(
      "--app-uid", o->app_uids,
      "take outbound connections of these users only, and treat those of others on this "
      "host to the workload's ports as inbound; repeatable");
  command->add_option("--app-gid", o->app_gids, "the same by group; repeatable");
  command->add_option("--exclude-uid", o->exclude_uids, "leave these users alone; repeatable");
  command->add_option("--exclude-gid", o->exclude_gids, "leave these groups alone; repeatable");
  command->add_option(
      "--app-cgroup", o->app_cgroups,
      "the same by control group (version 2), such as system.slice/db.service, with "
      "all below; it must be there already; repeatable");
  command->add_option("--exclude-cgroup", o->exclude_cgroups,
                      "leave this control group alone, with all below; repeatable");
  command->add_option("--exclude-interface", o->no_interfaces,
                      "leave this interface alone; repeatable");
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

absl::Status ParseIdentities(const RuleOptions& o, InterceptConfig* config) {
  absl::Status status;
  status.Update(ParseAll("--proxy-uid", o.proxy_uids, UserId, &config->proxy_uids));
  status.Update(ParseAll("--proxy-gid", o.proxy_gids, GroupId, &config->proxy_gids));
  status.Update(ParseAll("--app-uid", o.app_uids, UserId, &config->app_uids));
  status.Update(ParseAll("--app-gid", o.app_gids, GroupId, &config->app_gids));
  status.Update(ParseAll("--exclude-uid", o.exclude_uids, UserId, &config->exclude_uids));
  status.Update(ParseAll("--exclude-gid", o.exclude_gids, GroupId, &config->exclude_gids));
  const auto cgroup = [](const std::string& text) { return intercept::Cgroup::Find(text); };
  status.Update(ParseAll("--app-cgroup", o.app_cgroups, cgroup, &config->app_cgroups));
  status.Update(ParseAll("--exclude-cgroup", o.exclude_cgroups, cgroup, &config->exclude_cgroups));
  return status;
}

absl::Status ParseTargets(const RuleOptions& o, InterceptConfig* c) {
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

}  // namespace

void AddRuleOptions(CLI::App* command, RuleOptions* options) {
  AddProxyOptions(command, options);
  AddTargetOptions(command, options);
  AddIdentityOptions(command, options);
}

absl::StatusOr<InterceptConfig> RulesFrom(const RuleOptions& o) {
  InterceptConfig config;
  config.mode = o.mode == "tproxy" ? intercept::RuleMode::kTproxy : intercept::RuleMode::kRedirect;
  config.name = o.name;
  config.inbound = !o.no_inbound;
  config.outbound = !o.no_outbound;
  config.inbound_port = o.inbound_port;
  config.outbound_port = o.outbound_port;
  config.own_ports = o.own_ports;
  config.proxy_mark = o.proxy_mark;
  config.pass_mark = o.pass_mark;
  config.return_mark = o.return_mark;
  config.fail_closed = o.fail_closed;
  config.exclude_interfaces = o.no_interfaces;
  if (absl::Status status = ParseIdentities(o, &config); !status.ok())
    return status;
  if (absl::Status status = ParseTargets(o, &config); !status.ok())
    return status;
  if (absl::Status status = intercept::CheckConfig(config); !status.ok())
    return status;
  return config;
}

}  // namespace postern::cli
