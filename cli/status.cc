// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/http_client.h"
#include "cli/issuer_nouns.h"
#include "cli/json_text.h"

namespace postern::cli {
namespace {

using nlohmann::ordered_json;

absl::Status ShowProxy(const std::string& admin, const std::string& output, Context& context) {
  absl::StatusOr<std::string> page = HttpPage("--admin", admin, "/status");
  if (!page.ok())
    return page.status();
  return PrintJsonPage(*page, output, context.out);
}

absl::Status ShowIssuer(const std::string& socket, const std::string& output, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::IssuerStatus> status = (*client)->GetStatus();
  if (!status.ok())
    return status.status();
  ordered_json proxies = ordered_json::array();
  for (const v1::IssuerStatus::Proxy& proxy : status->proxies()) {
    ordered_json entry = {{"spiffe_id", proxy.spiffe_id()},
                          {"address", proxy.address()},
                          {"connected_at", TimeText(proxy.connected_at())},
                          {"acked_bundles", VersionText(proxy.acked_bundles())},
                          {"acked_policy", VersionText(proxy.acked_policy())},
                          {"acked_revocations", VersionText(proxy.acked_revocations())}};
    if (!proxy.last_error().empty())
      entry["last_error"] = proxy.last_error();
    proxies.push_back(std::move(entry));
  }
  const ordered_json document = {{"trust_domain", status->trust_domain()},
                                 {"bundle_version", VersionText(status->bundle_version())},
                                 {"policy_version", VersionText(status->policy_version())},
                                 {"certificates_issued", status->certificates_issued()},
                                 {"connected_proxies", status->connected_proxies()},
                                 {"proxies", std::move(proxies)}};
  return PrintJsonPage(document.dump(), output, context.out);
}

}  // namespace

void AddStatus(CLI::App& root, Context& context) {
  struct Options {
    std::string admin = kDefaultProxyAdmin, socket, output = "text";
    bool issuer = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* status =
      root.add_subcommand("status", "how a proxy, or with --issuer the issuer, is doing");
  CLI::Option* admin =
      status->add_option("--admin", o->admin, "the proxy's --admin address")->capture_default_str();
  status->add_flag("--issuer", o->issuer, "ask the issuer, over --socket")
      ->excludes(admin)
      ->group(kNotFromEnvironment);
  AddSocketOption(status, &o->socket);
  AddOutputOption(status, &o->output, {"text", "json"});
  OnSelected(status, context, [o](Context& c) {
    return o->issuer ? ShowIssuer(o->socket, o->output, c) : ShowProxy(o->admin, o->output, c);
  });
}

}  // namespace postern::cli
