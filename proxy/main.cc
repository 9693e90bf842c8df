// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/process.h"
#include "common/base/strings.h"
#include "common/rpc/grpc_log.h"
#include "common/x509/key_memory.h"
#include "common/x509/openssl_blocks.h"
#include "proxy/config/proxy_config.h"
#include "proxy/process/proxy_process.h"
#include "proxy/session/connection_limit.h"

namespace {

// A library may use OpenSSL while it is loaded, and then it is too late for this. What
// stands in .preinit_array of a program runs before their constructors.
void BeforeAll() {
  postern::x509::KeepOpensslBlocks();  // where it can not, OpenSSL goes on with malloc
}
[[gnu::section(".preinit_array"), gnu::used]] void (*before_all)() = &BeforeAll;

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int Main(int argc, const char* const* argv) {
  const postern::config::ParseOutcome parsed = postern::config::ParseProxyConfig(argc, argv);
  if (parsed.exit.has_value()) {
    std::fputs(parsed.exit->text.c_str(), parsed.exit->exit_code == 0 ? stdout : stderr);
    return parsed.exit->exit_code;
  }
  const postern::config::ProxyConfig& config = *parsed.config;
  if (const absl::Status hardened = postern::base::HardenProcess(); !hardened.ok()) {
    std::fprintf(stderr, "postern-proxy: %s\n", hardened.ToString().c_str());
    return kFailed;
  }
  // One for the main loop and everything beside, one for each worker.
  postern::base::LimitArenas(static_cast<int>(config.workers) + 1);
  if (const absl::Status logging = postern::base::InitLogging(config.log_level, config.log_format);
      !logging.ok()) {
    std::fprintf(stderr, "postern-proxy: --log-level: %s\n", logging.ToString().c_str());
    return kUsage;
  }
  if (const absl::Status locked =
          postern::x509::LockKeyMemory(postern::session::ConnectionLimit(config));
      !locked.ok()) {
    spdlog::warn("{}", postern::base::Message(locked));
  }
  postern::rpc::RouteGrpcLog();
  auto proxy = postern::process::ProxyProcess::Start(config, postern::base::Clock::System());
  if (!proxy.ok()) {
    spdlog::error("cannot start: {}", postern::base::Message(proxy.status()));
    postern::base::FlushLogging();
    return absl::IsInvalidArgument(proxy.status()) ? kUsage : kFailed;
  }
  spdlog::info("postern-proxy {} runs with {} worker(s)", POSTERN_VERSION, config.workers);
  (*proxy)->Run();
  proxy->reset();
  postern::base::FlushLogging();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return Main(argc, argv);
}
