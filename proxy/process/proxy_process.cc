// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/proxy_process.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <iterator>

#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/process.h"
#include "common/base/strings.h"
#include "common/base/with_flag.h"
#include "proxy/admin/pages.h"
#include "proxy/identity/identity_manager.h"
#include "proxy/intercept/self_probe.h"
#include "proxy/net/timer.h"
#include "proxy/process/admin_ports.h"
#include "proxy/process/capabilities.h"
#include "proxy/process/handover_port.h"
#include "proxy/process/loop_answer.h"
#include "proxy/process/memory_keeper.h"
#include "proxy/process/status_pages.h"
#include "proxy/session/connection_limit.h"
#include "proxy/session/source_limits.h"
#include "proxy/telemetry/access_record.h"
#include "proxy/telemetry/metrics_registry.h"

namespace postern::process {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTickPeriod{1000};
constexpr milliseconds kHurriedDrain{1000};
constexpr size_t kListedConnections = 10'000;
constexpr std::chrono::seconds kPageDeadline{2};

enum class Phase : uint8_t { kStarting, kRunning, kDraining, kEnded };

std::string_view Token(Phase phase) {
  switch (phase) {
    case Phase::kStarting:
      return "starting";
    case Phase::kRunning:
      return "running";
    case Phase::kDraining:
      return "draining";
    case Phase::kEnded:
      break;
  }
  return "ended";
}

uint64_t OpenConnections(const telemetry::WorkerMetrics& metrics) {
  uint64_t open = 0;
  for (size_t direction = 0; direction < base::kDirectionCount; ++direction) {
    open += metrics.opened[direction].value();
    for (const telemetry::Counter& closed : metrics.closed[direction]) {
      open -= closed.value();
    }
  }
  // The counters are read one after the other while the worker goes on: never show a wrapped one.
  return static_cast<int64_t>(open) < 0 ? 0 : open;
}

}  // namespace

// Members in the order in which they are made; destroyed the other way round, but for what the
// destructor stops first.
struct ProxyProcess::Impl {
  Impl(const config::ProxyConfig& proxy_config, const base::Clock& proxy_clock)
      : config(proxy_config), clock(proxy_clock), started(proxy_clock.Now()) {}
  ~Impl();

  // Start, step by step.
  absl::Status OpenLogs();
  absl::Status OpenIdentity();
  absl::Status OpenWorkers();
  absl::Status OpenAdministration();
  absl::Status OpenHandover();
  absl::Status HandleSignals();
  void FillPages();
  void WarnOfWeakSettings() const;

  // Once a second, on the main loop.
  void OnTick();

  // The end, on the main loop.
  void OnTerminate();
  void BeginDrain(milliseconds delay, milliseconds deadline);
  void DrainWorkers(milliseconds delay, milliseconds deadline);
  void OnWorkerDrained(size_t index);
  void End();

  std::vector<std::string> Missing() const;
  std::vector<std::string> Hints() const;
  std::optional<bool> Caught() const;  // by the rules; nullopt: it is not known
  std::string Status() const;
  std::string Connections() const;
  std::string Seen() const;
  absl::Status ForgetSeen(std::string_view destination);
  uint64_t OpenTotal() const;

  const config::ProxyConfig& config;
  const base::Clock& clock;
  const absl::Time started;
  std::atomic<Phase> phase{Phase::kStarting};
  std::unique_ptr<net::Loop> loop;
  std::unique_ptr<telemetry::AccessLog> access_log;
  telemetry::FailureRing failures;
  std::unique_ptr<identity::IdentityManager> identity;
  std::unique_ptr<intercept::SelfProbe> probe;  // null: nothing to probe
  std::vector<std::unique_ptr<session::Worker>> workers;
  std::vector<bool> drained;                       // by worker; main loop
  milliseconds drain_until = milliseconds::max();  // on the loop's clock; main loop
  int terminations = 0;                            // signals that asked for the end; main loop
  std::unique_ptr<telemetry::MetricsRegistry> metrics;
  admin::Pages pages;
  admin::Verbs verbs;
  std::unique_ptr<AdminPorts> admin_ports;
  std::unique_ptr<HandoverPort> handover;  // --handover-fd
  size_t next_worker = 0;                  // for what is handed over; main loop
  MemoryKeeper memory;
  std::unique_ptr<net::Timer> watchdog;
};

ProxyProcess::Impl::~Impl() {
  // Administration reads everything else, workers use the identity's directory.
  admin_ports.reset();
  for (const std::unique_ptr<session::Worker>& worker : workers) {
    worker->Stop();
  }
}

absl::Status ProxyProcess::Impl::OpenLogs() {
  auto opened = telemetry::AccessLog::Open(config.access_log);
  if (!opened.ok()) {
    return base::WithFlag("--access-log", opened.status());
  }
  access_log = *std::move(opened);
  auto made = net::Loop::Create();
  if (!made.ok()) {
    return made.status();
  }
  loop = *std::move(made);
  return absl::OkStatus();
}

absl::Status ProxyProcess::Impl::OpenIdentity() {
  identity::IdentityManager::Callbacks callbacks;
  callbacks.on_identity = [this](const std::shared_ptr<const identity::IdentitySnapshot>& now) {
    for (const std::unique_ptr<session::Worker>& worker : workers) {
      worker->PublishIdentity(now);
    }
  };
  callbacks.on_policy = [this](const std::shared_ptr<const policy::PolicySet>& now) {
    for (const std::unique_ptr<session::Worker>& worker : workers) {
      worker->PublishPolicy(now);
    }
  };
  callbacks.on_revocations = [this](const std::shared_ptr<const x509::RevocationSet>& now) {
    for (const std::unique_ptr<session::Worker>& worker : workers) {
      worker->PublishRevocations(now);
    }
  };
  auto made = identity::IdentityManager::Create(config, *loop, clock, std::move(callbacks));
  if (!made.ok()) {
    return absl::InvalidArgumentError(made.status().message());  // of configuration, all of them
  }
  identity = *std::move(made);
  return absl::OkStatus();
}

absl::Status ProxyProcess::Impl::OpenWorkers() {
  session::WorkerShared shared;
  shared.config = &config;
  shared.clock = &clock;
  // Whoever writes no log makes no records for it.
  shared.access_log = config.access_log.empty() ? nullptr : access_log.get();
  shared.failures = &failures;
  shared.endpoints = &identity->directory();
  shared.times = &identity->times();
  if (config.intercept != config::InterceptMode::kNone && config.intercept_probe.count() > 0) {
    probe = std::make_unique<intercept::SelfProbe>(
        *loop,
        intercept::SelfProbe::Options{config.outbound_port, config.mark, config.intercept_probe});
    shared.probe = &probe->slot();
  }
  if (!config.issuer.empty()) {
    shared.hears_issuer = [this] { return identity->HearsIssuer(); };
  }
  shared.limits = std::make_shared<session::SourceLimits>(config, session::ConnectionLimit(config));
  for (unsigned index = 0; index < config.workers; ++index) {
    auto worker = session::Worker::Create(index, shared);
    if (!worker.ok()) {
      return worker.status();
    }
    workers.push_back(*std::move(worker));
  }
  drained.assign(workers.size(), false);
  // The workers dial, and this thread with a mark of its own; nobody else needs to.
  if (config.mark == 0) {
    if (absl::Status dropped = DropNetworkCapabilities(); !dropped.ok()) {
      return dropped;
    }
  }
  telemetry::MetricsSources sources;
  for (const std::unique_ptr<session::Worker>& worker : workers) {
    sources.workers.push_back(&worker->metrics());
  }
  sources.identity = [this] { return identity->gauges(); };
  sources.ready = [this] { return Missing().empty(); };
  sources.intercept_ok = [this] { return Caught(); };
  sources.access_log_dropped = [this] { return access_log->dropped(); };
  sources.tls_only_tunnels = static_cast<size_t>(
      std::count_if(config.tunnels.begin(), config.tunnels.end(),
                    [](const config::TunnelSpec& tunnel) { return !tunnel.client_auth; }));
  metrics = std::make_unique<telemetry::MetricsRegistry>(std::move(sources));
  return absl::OkStatus();
}

void ProxyProcess::Impl::FillPages() {
  pages.status = [this] { return Status(); };
  pages.config = [this] { return config::ConfigAsJson(config); };
  pages.certs = [this] { return CertificatesPage(identity->status(), clock.Now()); };
  pages.connections = [this] { return Connections(); };
  pages.failures = [this] { return failures.ToJson(); };
  pages.metrics = [this] { return metrics->Scrape(); };
  pages.missing = [this] { return Missing(); };
  pages.hints = [this] { return Hints(); };
  verbs.drain = [this] {
    loop->Post([this] { BeginDrain(config.drain_delay, config.drain_timeout); });
  };
  verbs.shutdown = [this] { loop->Post([this] { End(); }); };
  pages.seen = [this] { return Seen(); };
  verbs.forget_seen = [this](std::string_view destination) { return ForgetSeen(destination); };
  verbs.set_log_level = [](std::string_view level) { return base::SetLogLevel(level); };
  verbs.renew = [this] {
    if (config.issuer.empty()) {
      return absl::FailedPreconditionError(
          "this proxy has no issuer: its certificate comes from files, which it follows by itself");
    }
    loop->Post([this] { identity->Renew(); });
    return absl::OkStatus();
  };
}

absl::Status ProxyProcess::Impl::OpenAdministration() {
  FillPages();
  auto opened = AdminPorts::Open(config, pages, verbs);
  if (opened.ok()) {
    admin_ports = *std::move(opened);
  }
  return opened.status();
}

// Connections go round the workers; a listening socket is every worker's.
absl::Status ProxyProcess::Impl::OpenHandover() {
  if (config.handover_fd < 0) {
    return absl::OkStatus();
  }
  HandoverPort::Callbacks callbacks;
  callbacks.is_ready = [this] { return Missing().empty(); };
  callbacks.on_connection = [this](session::HandedConnection handed) {
    next_worker = (next_worker + 1) % workers.size();
    workers[next_worker]->TakeConnection(std::move(handed));
  };
  callbacks.on_listener = [this](const std::shared_ptr<const base::UniqueFd>& listening,
                                 const net::SocketAddress& target) {
    for (const std::unique_ptr<session::Worker>& worker : workers) {
      worker->TakeListener(listening, target);
    }
  };
  callbacks.on_gone = [this] { BeginDrain(milliseconds(0), config.drain_timeout); };
  auto opened = HandoverPort::Open(*loop, config.handover_fd, std::move(callbacks));
  if (!opened.ok()) {
    return base::WithFlag("--handover-fd", opened.status());
  }
  handover = *std::move(opened);
  return absl::OkStatus();
}

absl::Status ProxyProcess::Impl::HandleSignals() {
  for (const int signal_number : {SIGTERM, SIGINT}) {
    if (absl::Status set = loop->OnSignal(signal_number, [this] { OnTerminate(); }); !set.ok()) {
      return set;
    }
  }
  return loop->OnSignal(SIGHUP, [this] {
    spdlog::info("reading files again");
    access_log->Reopen();
    identity->Reload();
  });
}

void ProxyProcess::Impl::WarnOfWeakSettings() const {
  for (const config::TunnelSpec& tunnel : config.tunnels) {
    if (!tunnel.client_auth) {
      spdlog::warn(
          "tunnel {}: client-auth=none: clients are NOT authenticated, anybody who reaches "
          "this port is let through",
          tunnel.name);
    }
  }
  if ((config.intercept != config::InterceptMode::kNone || config.handover_fd >= 0) &&
      config.peer_mode != config::PeerMode::kStrict) {
    spdlog::warn("--peer-mode: plaintext clients are let in on ports without a mode of their own");
  }
  for (const auto& [port, mode] : config.port_modes) {
    if (mode == config::PeerMode::kSkip) {
      spdlog::warn("--port-mode {}=skip: everybody is let in there, policy is NOT asked", port);
    }
  }
}

void ProxyProcess::Impl::OnTick() {
  base::NotifyServiceManager("WATCHDOG=1");
  switch (memory.OnTick(Missing().empty(), OpenTotal())) {
    case MemoryKeeper::Action::kNothing:
      return;
    case MemoryKeeper::Action::kGiveBackStart:
      base::GiveBackStartMemory();
      return;
    case MemoryKeeper::Action::kGiveBackFree:
      base::GiveBackFreeMemory();
      return;
  }
}

// The first signal drains, the second hurries, the third ends at once.
void ProxyProcess::Impl::OnTerminate() {
  ++terminations;
  if (terminations == 1) {
    BeginDrain(config.drain_delay, config.drain_timeout);
  } else if (terminations == 2) {
    spdlog::warn("second signal: the drain is cut short");
    BeginDrain(milliseconds(0), kHurriedDrain);
  } else {
    End();
  }
}

void ProxyProcess::Impl::BeginDrain(milliseconds delay, milliseconds deadline) {
  if (phase.load() == Phase::kEnded) {
    return;
  }
  spdlog::info("draining: {} connections open, inbound stops after {} ms, deadline {} ms",
               OpenTotal(), delay.count(), deadline.count());
  phase.store(Phase::kDraining);
  base::NotifyServiceManager("STOPPING=1");
  drain_until = std::min(drain_until, loop->Now() + deadline);
  DrainWorkers(delay, deadline);
}

void ProxyProcess::Impl::DrainWorkers(milliseconds delay, milliseconds deadline) {
  drained.assign(workers.size(), false);
  for (size_t index = 0; index < workers.size(); ++index) {
    workers[index]->Drain(delay, deadline,
                          [this, index] { loop->Post([this, index] { OnWorkerDrained(index); }); });
  }
}

void ProxyProcess::Impl::OnWorkerDrained(size_t index) {
  drained[index] = true;
  if (!std::all_of(drained.begin(), drained.end(), [](bool done) { return done; })) {
    return;
  }
  // Outbound goes on: a worker that was done has connections again while another one was not.
  const milliseconds left = drain_until - loop->Now();
  if (OpenTotal() > 0 && left.count() > 0) {
    DrainWorkers(milliseconds(0), left);
    return;
  }
  spdlog::info("drained");
  End();
}

void ProxyProcess::Impl::End() {
  phase.store(Phase::kEnded);
  loop->Stop();
}

std::vector<std::string> ProxyProcess::Impl::Missing() const {
  std::vector<std::string> missing;
  if (const Phase now = phase.load(); now != Phase::kRunning) {
    missing.push_back(base::StrCat("the proxy is ", Token(now)));
  }
  if (const absl::Status usable = identity->CheckUsable(); !usable.ok()) {
    missing.push_back(base::StrCat("no certificate that is valid now: ", base::Message(usable)));
  }
  if (const absl::Status fresh = identity->CheckFresh(); !fresh.ok()) {
    missing.emplace_back(base::Message(fresh));
  }
  if (!identity->HasPolicy()) {
    missing.emplace_back("no policy has come yet");
  }
  return missing;
}

std::optional<bool> ProxyProcess::Impl::Caught() const {
  return probe == nullptr ? std::nullopt : probe->IsCaught();
}

std::vector<std::string> ProxyProcess::Impl::Hints() const {
  if (Caught() == false) {
    return {
        "the interception rules are not in force: connections may go past the proxy in plaintext "
        "(`postern intercept diff`)"};
  }
  return {};
}

uint64_t ProxyProcess::Impl::OpenTotal() const {
  uint64_t open = 0;
  for (const std::unique_ptr<session::Worker>& worker : workers) {
    open += OpenConnections(worker->metrics());
  }
  return open;
}

std::string ProxyProcess::Impl::Status() const {
  ProcessFacts facts;
  facts.phase = Token(phase.load());
  facts.missing = Missing();
  facts.started = started;
  facts.now = clock.Now();
  facts.workers = config.workers;
  facts.connections_open = OpenTotal();
  facts.listeners = workers.front()->listeners();
  facts.hints = Hints();
  if (config.intercept != config::InterceptMode::kNone) {
    const auto verdict = [this](bool v4) {
      return std::string(
          Token(probe == nullptr ? intercept::SelfProbe::Verdict::kUnknown : probe->verdict(v4)));
    };
    facts.interception = ProcessFacts::Interception{std::string(Token(config.intercept)),
                                                    verdict(true), verdict(false), Caught()};
  }
  return StatusPage(facts, identity->status());
}

std::string ProxyProcess::Impl::Connections() const {
  std::vector<session::ConnectionInfo> all;
  for (const std::unique_ptr<session::Worker>& worker : workers) {
    auto some = AwaitAnswer<std::vector<session::ConnectionInfo>>(
        kPageDeadline,
        [&worker](auto tell) { worker->ListConnections(kListedConnections, std::move(tell)); });
    if (some.has_value()) {
      std::move(some->begin(), some->end(), std::back_inserter(all));
    }
  }
  return ConnectionsPage(all);
}

// Asked of the main loop by an administration thread, which waits.
std::string ProxyProcess::Impl::Seen() const {
  const auto seen = AwaitAnswer<std::vector<std::string>>(kPageDeadline, [this](auto tell) {
    loop->Post([this, tell = std::move(tell)] { tell(identity->SeenInMesh()); });
  });
  return seen.has_value() ? SeenPage(*seen) : "{\"error\":\"the proxy is busy; ask again\"}\n";
}

absl::Status ProxyProcess::Impl::ForgetSeen(std::string_view destination) {
  const auto done = AwaitAnswer<absl::Status>(kPageDeadline, [this, destination](auto tell) {
    loop->Post([this, tell = std::move(tell), which = std::string(destination)] {
      const absl::Status forgotten = identity->ForgetSeen(which);
      if (forgotten.ok()) {
        spdlog::warn("an operator let {} leave the mesh: plaintext to it is no longer refused",
                     base::Printable(which));
      }
      tell(forgotten);
    });
  });
  return done.value_or(absl::UnavailableError("the proxy is busy; ask again"));
}

absl::StatusOr<std::unique_ptr<ProxyProcess>> ProxyProcess::Start(const config::ProxyConfig& config,
                                                                  const base::Clock& clock) {
  auto impl = std::make_unique<Impl>(config, clock);
  for (const auto step : {&Impl::OpenLogs, &Impl::OpenIdentity, &Impl::OpenWorkers,
                          &Impl::OpenAdministration, &Impl::OpenHandover, &Impl::HandleSignals}) {
    if (absl::Status done = (*impl.*step)(); !done.ok()) {
      return done;
    }
  }
  impl->WarnOfWeakSettings();
  return std::unique_ptr<ProxyProcess>(new ProxyProcess(std::move(impl)));
}

ProxyProcess::ProxyProcess(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ProxyProcess::~ProxyProcess() = default;

void ProxyProcess::Run() {
  Impl& impl = *impl_;
  // The identity publishes first, so that no worker accepts a connection that it must hold for want
  // of a certificate that is there already.
  impl.identity->Start();
  for (const std::unique_ptr<session::Worker>& worker : impl.workers) {
    worker->Start();
  }
  impl.phase.store(Phase::kRunning);
  if (impl.probe != nullptr) {
    impl.probe->Start();
  }
  impl.watchdog = std::make_unique<net::Timer>(*impl.loop, [&impl] { impl.OnTick(); });
  impl.watchdog->StartRepeating(kTickPeriod);
  // Listeners are open. A certificate may still be on its way: that is /ready, not the unit's
  // start, which would otherwise time out while the issuer is away.
  base::NotifyServiceManager("READY=1");
  impl.loop->Run();
  impl.watchdog.reset();
}

void ProxyProcess::Drain() {
  impl_->verbs.drain();
}

std::vector<std::string> ProxyProcess::Missing() const {
  return impl_->Missing();
}

uint16_t ProxyProcess::admin_port() const {
  return impl_->admin_ports->admin_port();
}

uint16_t ProxyProcess::metrics_port() const {
  return impl_->admin_ports->metrics_port();
}

const std::vector<session::Worker::BoundListener>& ProxyProcess::listeners() const {
  return impl_->workers.front()->listeners();
}

}  // namespace postern::process
