// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <ctime>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "common/base/strings.h"
#include "common/rpc/grpc_log.h"
#include "common/x509/key_memory.h"
#include "control/service/issuer_config.h"
#include "control/service/issuer_process.h"

namespace {

using postern::base::Clock;
using postern::service::IssuerConfig;
using postern::service::IssuerProcess;

constexpr int kFailed = 1;
// gRPC's; far past what its memory for each would allow.
constexpr size_t kMostConnections = 100'000;
constexpr timespec kTickPeriod = {1, 0};

// Blocked before the first thread exists, so that they come to Run alone.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal_number : {SIGTERM, SIGINT, SIGHUP}) {
    sigaddset(&signals, signal_number);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Ticks until a signal ends it. SIGHUP does nothing: what the issuer serves is never stale.
void Run(IssuerProcess& issuer, const sigset_t& signals) {
  while (true) {
    const int signal_number = sigtimedwait(&signals, nullptr, &kTickPeriod);
    if (signal_number == SIGTERM || signal_number == SIGINT) {
      spdlog::info("stopping on signal {}", signal_number);
      return;
    }
    issuer.Tick();
    postern::base::NotifyServiceManager("WATCHDOG=1");
  }
}

// The port that the kernel picked, where the configuration says 0.
void Announce(const IssuerConfig& config, const IssuerProcess& issuer) {
  spdlog::info("postern-identity {} serves trust domain {} on {} port {}", POSTERN_VERSION,
               config.trust_domain.name(), config.listen.host, issuer.grpc_port());
  if (config.allow_short_ttl) {
    spdlog::warn("--allow-short-ttl: certificates may live as short as 10s; for tests alone");
  }
}

int Main(int argc, const char* const* argv) {
  const postern::service::ParseOutcome parsed = postern::service::ParseIssuerConfig(argc, argv);
  if (parsed.exit.has_value()) {
    std::fputs(parsed.exit->text.c_str(), parsed.exit->exit_code == 0 ? stdout : stderr);
    return parsed.exit->exit_code;
  }
  const IssuerConfig& config = *parsed.config;
  if (const absl::Status hardened = postern::base::HardenProcess(); !hardened.ok()) {
    std::fprintf(stderr, "postern-identity: %s\n", hardened.ToString().c_str());
    return kFailed;
  }
  const sigset_t signals = BlockSignals();
  if (const absl::Status logging = postern::base::InitLogging(config.log_level, config.log_format);
      !logging.ok()) {
    std::fprintf(stderr, "postern-identity: --log-level: %s\n", logging.ToString().c_str());
    return 2;
  }
  if (const absl::Status locked = postern::x509::LockKeyMemory(kMostConnections); !locked.ok()) {
    spdlog::warn("{}", postern::base::Message(locked));
  }
  postern::rpc::RouteGrpcLog();
  auto issuer = IssuerProcess::Start(config, Clock::System());
  if (!issuer.ok()) {
    spdlog::error("cannot start: {}", postern::base::Message(issuer.status()));
    postern::base::FlushLogging();
    return kFailed;
  }
  Announce(config, **issuer);
  postern::base::NotifyServiceManager("READY=1");
  Run(**issuer, signals);
  postern::base::NotifyServiceManager("STOPPING=1");
  issuer->reset();
  postern::base::FlushLogging();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return Main(argc, argv);
}
