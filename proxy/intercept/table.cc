// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "common/base/strings.h"
#include "proxy/intercept/nft.h"
#include "proxy/intercept/nft_text.h"
#include "proxy/intercept/scratch_namespace.h"

namespace postern::intercept {
namespace {

// nft's JSON has no word for the level of a control group.
bool NeedsText(const InterceptConfig& config) {
  return !config.app_cgroups.empty() || !config.exclude_cgroups.empty();
}

// The transaction, in the language in which nft can be told it.
absl::StatusOr<std::string> Run(const InterceptConfig& config) {
  const absl::StatusOr<std::string> rules = RenderedForNft(config);
  if (!rules.ok()) {
    return rules.status();
  }
  if (NeedsText(config)) {
    return RunNft({"-f", "-"}, *rules);
  }
  return RunNft({"-j", "-f", "-"}, *rules);
}

}  // namespace

absl::StatusOr<std::string> RenderedForNft(const InterceptConfig& config) {
  absl::StatusOr<std::string> rules = RenderUp(config);
  return rules.ok() && NeedsText(config) ? CommandsAsText(*rules) : rules;
}

PolicyRoute RouteOf(const InterceptConfig& config) {
  return {config.return_mark, config.inbound_port};
}

absl::Status ApplyRules(const InterceptConfig& config) {
  absl::StatusOr<std::optional<TableState>> before = ReadRules(config.name);
  if (!before.ok()) {
    return before.status();
  }
  if (absl::Status checked = CheckConfig(config); !checked.ok()) {
    return checked;
  }
  // The routes first: without them the answers to clients would leave past the proxy.
  const bool tproxy = config.mode == RuleMode::kTproxy;
  if (absl::Status routed = tproxy ? AddPolicyRoute(RouteOf(config)) : absl::OkStatus();
      !routed.ok()) {
    return routed;
  }
  if (auto out = Run(config); !out.ok()) {
    return out.status();
  }
  const uint16_t old_port = before->has_value() ? (*before)->tproxy_port : uint16_t{0};
  if (old_port != 0 && !(tproxy && old_port == config.inbound_port)) {
    if (absl::Status removed = RemovePolicyRoute(old_port); !removed.ok()) {
      return removed;
    }
  }
  return VerifyRules(config);
}

absl::Status RemoveRules(const std::string& name) {
  absl::StatusOr<std::optional<TableState>> before = ReadRules(name);
  if (!before.ok()) {
    return before.status();
  }
  absl::StatusOr<std::string> rules = RenderDown(name);
  if (!rules.ok()) {
    return rules.status();
  }
  if (auto out = RunNft({"-j", "-f", "-"}, *rules); !out.ok()) {
    return out.status();
  }
  const uint16_t port = before->has_value() ? (*before)->tproxy_port : uint16_t{0};
  return port == 0 ? absl::OkStatus() : RemovePolicyRoute(port);
}

absl::StatusOr<std::optional<std::string>> ListRules(const std::string& name) {
  if (auto checked = RenderDown(name); !checked.ok()) {
    return checked.status();
  }
  absl::StatusOr<std::string> out = RunNft({"-j", "list", "table", "inet", TableName(name)}, "");
  if (out.ok()) {
    return std::optional<std::string>(*std::move(out));
  }
  if (absl::StrContains(out.status().message(), "No such file or directory")) {
    return std::optional<std::string>();
  }
  return out.status();
}

absl::StatusOr<std::optional<TableState>> ReadRules(const std::string& name) {
  absl::StatusOr<std::optional<std::string>> listing = ListRules(name);
  if (!listing.ok()) {
    return listing.status();
  }
  if (!listing->has_value()) {
    return std::optional<TableState>();
  }
  absl::StatusOr<TableState> state = ParseTable(**listing, name);
  if (!state.ok()) {
    return state.status();
  }
  return std::optional<TableState>(*std::move(state));
}

absl::Status VerifyRules(const InterceptConfig& config) {
  absl::StatusOr<std::string> rendered = RenderUp(config);
  if (!rendered.ok()) {
    return rendered.status();
  }
  absl::StatusOr<TableState> wanted = ParseTable(*rendered, config.name);
  if (!wanted.ok()) {
    return wanted.status();
  }
  absl::StatusOr<std::optional<TableState>> found = ReadRules(config.name);
  if (!found.ok()) {
    return found.status();
  }
  if (!found->has_value()) {
    return absl::FailedPreconditionError(
        base::StrCat("table inet ", TableName(config.name), " is not there"));
  }
  return CompareTables(*wanted, **found);
}

absl::StatusOr<std::string> ListAsWanted(const InterceptConfig& config) {
  absl::StatusOr<std::unique_ptr<ScratchNamespace>> scratch = ScratchNamespace::Enter();
  if (!scratch.ok()) {
    return scratch.status();
  }
  if (auto out = Run(config); !out.ok()) {
    return out.status();
  }
  absl::StatusOr<std::optional<std::string>> listing = ListRules(config.name);
  if (!listing.ok()) {
    return listing.status();
  }
  if (!listing->has_value()) {
    return absl::InternalError("nft took the rules and does not list them");
  }
  return **std::move(listing);
}

}  // namespace postern::intercept
