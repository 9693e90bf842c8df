// SPDX-License-Identifier: Apache-2.0
// What a proxy has ever seen in the mesh, and an operator's word that some of it has left.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/http_client.h"
#include "cli/json_text.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

absl::Status List(const std::string& admin, const std::string& output, Context& context) {
  absl::StatusOr<std::string> page = HttpPage("--admin", admin, "/seen");
  if (!page.ok())
    return page.status();
  return PrintJsonPage(*page, output, context.out);
}

// What the proxy says of a request that it refuses.
std::string WhyNot(const HttpReply& reply) {
  const auto page = nlohmann::json::parse(reply.body, nullptr, false);
  if (page.is_object() && page.contains("error") && page["error"].is_string()) {
    return base::Printable(page["error"].get<std::string>(), 300);
  }
  return base::Printable(reply.body, 300);
}

absl::Status Forget(const std::string& socket, const std::string& destination, Context& context) {
  // It goes into the request's line; the proxy judges what it means.
  for (const char c : destination) {
    if (c <= ' ' || c > '~')
      return absl::InvalidArgumentError(
          base::StrCat("'", base::Printable(destination), "' is no destination"));
  }
  const absl::StatusOr<HttpReply> reply =
      ControlRequest(socket, "POST", base::StrCat("/seen/forget?destination=", destination));
  if (!reply.ok())
    return reply.status();
  if (reply->status == 400)
    return absl::InvalidArgumentError(WhyNot(*reply));
  if (reply->status != 200)
    return absl::FailedPreconditionError(WhyNot(*reply));
  context.err << "postern: " << destination
              << " has left the mesh: plaintext to it is no longer refused\n";
  return absl::OkStatus();
}

}  // namespace

void AddSeen(CLI::App& root, Context& context) {
  CLI::App* noun =
      root.add_subcommand("seen", "destinations that a proxy does not let fall back to plaintext");
  noun->require_subcommand(1);
  struct Options {
    std::string admin = kDefaultProxyAdmin, admin_socket, output = "text", destination;
  };
  auto o = std::make_shared<Options>();

  CLI::App* list = noun->add_subcommand("list", "what the proxy has ever seen in the mesh");
  list->add_option("--admin", o->admin, "the proxy's --admin address")->capture_default_str();
  AddOutputOption(list, &o->output, {"text", "json"});
  OnSelected(list, context, [o](Context& c) { return List(o->admin, o->output, c); });

  CLI::App* forget =
      noun->add_subcommand("forget",
                           "let a destination leave the mesh, so that plaintext may go "
                           "there again");
  forget->add_option("destination", o->destination, "as `seen list` shows it, or all")->required();
  forget->add_option("--admin-socket", o->admin_socket, "the proxy's --admin-socket")->required();
  OnSelected(forget, context,
             [o](Context& c) { return Forget(o->admin_socket, o->destination, c); });
}

}  // namespace postern::cli
