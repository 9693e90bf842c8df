// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <type_traits>

#include "cli/command.h"
#include "cli/control_client.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kInterval{50};

struct RenewOptions {
  std::string socket, timeout = "30s";
};

absl::StatusOr<json> Page(const std::string& socket, std::string_view method,
                          std::string_view target) {
  const absl::StatusOr<HttpReply> reply = ControlRequest(socket, method, target);
  if (!reply.ok())
    return reply.status();
  json page = json::parse(reply->body, nullptr, /*allow_exceptions=*/false);
  if (reply->status != 200) {
    return absl::FailedPreconditionError(
        base::StrCat("the proxy refused: ", base::LineSafe(reply->body, 512)));
  }
  if (!page.is_object())
    return absl::InternalError("the proxy's answer is no JSON");
  return page;
}

// How often it has been tried, and with what result. A value.
struct Tries {
  uint64_t ok = 0, failed = 0;
  std::string error;
};

// What `page` has under `key`; an empty value of that type where it has another.
template <typename T>
T Field(const json& page, const char* key) {
  const auto at = page.find(key);
  const bool fits = at != page.end() &&
                    (std::is_same_v<T, std::string> ? at->is_string() : at->is_number_unsigned());
  return fits ? at->get<T>() : T{};
}

absl::StatusOr<Tries> ReadTries(const std::string& socket) {
  const absl::StatusOr<json> status = Page(socket, "GET", "/status");
  if (!status.ok())
    return status.status();
  const auto identity = status->find("identity");
  if (identity == status->end() || !identity->is_object())
    return absl::InternalError("the proxy's /status says nothing of its identity");
  return Tries{Field<uint64_t>(*identity, "renewals_ok"),
               Field<uint64_t>(*identity, "renewals_failed"),
               Field<std::string>(*identity, "renewal_error")};
}

absl::Status PrintLeaf(const std::string& socket, Context& context) {
  const absl::StatusOr<json> page = Page(socket, "GET", "/certs");
  if (!page.ok())
    return page.status();
  const auto certificates = page->find("certificates");
  for (const json& one : certificates == page->end() ? json::array() : *certificates) {
    if (one.is_object() && Field<std::string>(one, "kind") == "leaf") {
      context.out << "serial     " << Field<std::string>(one, "serial") << "\nnot after  "
                  << Field<std::string>(one, "not_after") << "\n";
      return absl::OkStatus();
    }
  }
  // It came, and waits for what it may not be used without; /ready says for what.
  return absl::FailedPreconditionError("a certificate came, but none is in use: see /ready");
}

absl::Status Renew(const RenewOptions& options, Context& context) {
  const absl::StatusOr<std::chrono::seconds> limit = ParseDuration("--timeout", options.timeout);
  if (!limit.ok())
    return limit.status();
  const absl::StatusOr<Tries> before = ReadTries(options.socket);
  if (!before.ok())
    return before.status();
  if (const auto asked = Page(options.socket, "POST", "/renew"); !asked.ok())
    return asked.status();
  const auto deadline = std::chrono::steady_clock::now() + *limit;
  while (true) {
    const absl::StatusOr<Tries> now = ReadTries(options.socket);
    if (!now.ok())
      return now.status();
    if (now->ok > before->ok)
      return PrintLeaf(options.socket, context);
    if (now->failed > before->failed) {
      return absl::UnavailableError(
          base::StrCat("not renewed, the old certificate goes on until its end: ",
                       base::LineSafe(now->error, 512)));
    }
    if (std::chrono::steady_clock::now() + kInterval > deadline) {
      return absl::DeadlineExceededError(
          base::StrCat("no answer of the issuer within ", options.timeout,
                       "; the proxy goes on trying, /status says with what result"));
    }
    std::this_thread::sleep_for(kInterval);
  }
}

}  // namespace

void AddRenew(CLI::App& root, Context& context) {
  auto o = std::make_shared<RenewOptions>();
  CLI::App* renew = root.add_subcommand(
      "renew", "a new certificate for a proxy, now; prints its serial when it is in use");
  renew->add_option("--admin-socket", o->socket, "the proxy's --admin-socket")->required();
  renew->add_option("--timeout", o->timeout, "how long to wait for it: 30s, 2m")
      ->capture_default_str();
  OnSelected(renew, context, [o](Context& c) { return Renew(*o, c); });
}

}  // namespace postern::cli
