// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"

namespace postern::cli {
namespace {

struct TokenOptions {
  std::string socket, ttl, output = "text";
  EntryOptions entry;
};

// The token is the only thing on standard output, so that `> FILE` makes a token file.
absl::Status Create(const TokenOptions& options, Context& context) {
  v1::CreateTokenRequest request;
  absl::StatusOr<v1::Entry> entry = ReadEntryOptions(options.entry);
  if (!entry.ok())
    return entry.status();
  *request.mutable_entry() = *std::move(entry);
  if (!options.ttl.empty()) {
    absl::StatusOr<std::chrono::seconds> ttl = ParseDuration("--ttl", options.ttl);
    if (!ttl.ok())
      return ttl.status();
    request.set_ttl_seconds(ttl->count());
  }
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::CreateTokenResponse> made = (*client)->CreateToken(request);
  if (!made.ok())
    return made.status();
  if (options.output == "json") {
    nlohmann::json result = {{"token", made->token()},
                             {"expires_at", TimeText(made->expires_at())}};
    result["entry"] = nlohmann::json::parse(EntryAsJson(made->entry()));
    context.out << result.dump(2) << "\n";
    return absl::OkStatus();
  }
  context.out << made->token() << "\n";
  context.err << "postern: for one start of " << made->entry().spiffe_id() << ", until "
              << TimeText(made->expires_at()) << " (entry " << made->entry().id()
              << "); it is not shown again\n";
  return absl::OkStatus();
}

}  // namespace

void AddToken(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("token", "join tokens of the issuer");
  noun->require_subcommand(1);
  CLI::App* create =
      noun->add_subcommand("create", "a single-use join token, and the entry that it attests to");
  auto options = std::make_shared<TokenOptions>();
  AddEntryOptions(create, &options->entry);
  create->add_option("--ttl", options->ttl, "how long the token can be used (default: 10m)");
  AddSocketOption(create, &options->socket);
  AddOutputOption(create, &options->output, {"text", "json"});
  OnSelected(create, context, [options](Context& c) { return Create(*options, c); });
}

}  // namespace postern::cli
