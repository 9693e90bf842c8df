// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>
#include <thread>

#include "cli/command.h"
#include "cli/http_client.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

constexpr std::chrono::milliseconds kInterval{100};

absl::Status WaitUntilReady(const std::string& address, const std::string& timeout) {
  absl::StatusOr<std::chrono::seconds> limit = ParseDuration("--timeout", timeout);
  if (!limit.ok())
    return limit.status();
  const auto deadline = std::chrono::steady_clock::now() + *limit;
  while (true) {
    const absl::StatusOr<HttpReply> reply = HttpGet("--address", address, "/ready");
    if (absl::IsInvalidArgument(reply.status()))
      return reply.status();
    if (reply.ok() && reply->status == 200)
      return absl::OkStatus();
    if (std::chrono::steady_clock::now() + kInterval > deadline) {
      return absl::DeadlineExceededError(base::StrCat(
          "not ready within ", limit->count(),
          " s: ", reply.ok() ? base::Printable(reply->body, 300) : base::Message(reply.status())));
    }
    std::this_thread::sleep_for(kInterval);
  }
}

}  // namespace

void AddWait(CLI::App& root, Context& context) {
  struct Options {
    std::string address = kDefaultProxyMetrics, timeout = "30s";
  };
  auto o = std::make_shared<Options>();
  CLI::App* wait = root.add_subcommand(
      "wait", "until a proxy or an issuer is ready; exit status 1 if it is not");
  wait->add_option("--address", o->address,
                   "the proxy's --metrics address, or the issuer's --admin (127.0.0.1:15014)")
      ->capture_default_str();
  wait->add_option("--timeout", o->timeout, "how long: 30s, 2m")->capture_default_str();
  OnSelected(wait, context, [o](Context&) { return WaitUntilReady(o->address, o->timeout); });
}

}  // namespace postern::cli
