// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/worker.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <future>
#include <thread>
#include <utility>

#include "common/base/enum_index.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "proxy/net/dns_client.h"
#include "proxy/net/name_cache.h"
#include "proxy/net/timer.h"
#include "proxy/session/admission.h"
#include "proxy/session/connection_limit.h"
#include "proxy/session/dialer.h"
#include "proxy/session/drainer.h"
#include "proxy/session/endpoint_health.h"
#include "proxy/session/expiry_watch.h"
#include "proxy/session/inbound_session.h"
#include "proxy/session/listeners.h"
#include "proxy/session/outbound_session.h"
#include "proxy/session/refusals.h"
#include "proxy/session/session_table.h"
#include "proxy/session/socket_state.h"
#include "proxy/session/source_limits.h"
#include "proxy/session/sweep.h"
#include "proxy/session/worker_context.h"
#include "proxy/session/worker_identity.h"
#include "proxy/tls/tls_engine.h"

namespace postern::session {
namespace {

using base::At;
using std::chrono::milliseconds;

constexpr milliseconds kHousekeepingPeriod{5000};
constexpr milliseconds kLivenessPeriod{5000};
constexpr unsigned kWorkerIdShift = 48;
// One recv's worth of plaintext and what an earlier one may have left of a record.
constexpr size_t kRelayScratchExtra = 32U << 10U;

constexpr std::array<base::Direction, base::kDirectionCount> kDirections = {
    base::Direction::kInbound, base::Direction::kOutbound};

size_t ShareOfLimit(const config::ProxyConfig& config) {
  return std::max<size_t>(ConnectionLimit(config) / std::max(config.workers, 1U), 1);
}

net::DnsClient::Options DnsOptions(const config::ProxyConfig& config) {
  net::DnsClient::Options options;
  options.mark = config.mark;
  for (const config::AddressSpec& server : config.name_servers) {
    if (const auto address = FixedAddress(server); address.has_value()) {  // as it always has
      options.servers.push_back(*address);
    }
  }
  return options;
}

telemetry::NameResult ResultOf(net::NameEvent event) {
  switch (event) {
    case net::NameEvent::kResolved:
      return telemetry::NameResult::kResolved;
    case net::NameEvent::kNotFound:
      return telemetry::NameResult::kNotFound;
    case net::NameEvent::kFailed:
      return telemetry::NameResult::kFailed;
    case net::NameEvent::kStale:
      break;
  }
  return telemetry::NameResult::kStale;
}

}  // namespace

struct Worker::Impl {
  enum class Thread : uint8_t { kWaiting, kRunning, kJoined };
  enum class Gate : uint8_t { kOpen, kPaused };

  Impl(unsigned worker_index, const WorkerShared& given, std::unique_ptr<net::Loop> own_loop);
  ~Impl() { Stop(); }

  static absl::StatusOr<std::unique_ptr<Impl>> Make(unsigned index, const WorkerShared& shared);
  absl::Status Open();
  bool Admit(const ListenerSpec& via, const net::SocketAddress& peer);
  bool IsProbe(const ListenerSpec& via, const net::Stream& stream, const net::SocketAddress& peer);
  void OnAccept(const ListenerSpec& via, std::unique_ptr<net::Stream> stream,
                const net::SocketAddress& peer);
  void TakeConnection(HandedConnection handed);
  void TakeListener(int listening, const net::SocketAddress& target);
  void OnCountsChanged();
  void CloseGates();
  void SetGate(base::Direction direction, Gate gate);
  bool IsFull(base::Direction direction) const;
  void SetIdentity(std::shared_ptr<const identity::IdentitySnapshot> snapshot);
  void SetPolicy(std::shared_ptr<const policy::PolicySet> policy);
  void SetRevocations(std::shared_ptr<const x509::RevocationSet> revocations);
  void KeepHouse();
  void CheckLiveness(uint64_t id);
  void VisitPeer(uint64_t id);
  void CountReauths();
  void EndAll(std::string_view why);
  void Stop();
  std::vector<ConnectionInfo> Connections(size_t limit);

  const unsigned index;
  const WorkerShared shared;
  const std::unique_ptr<net::Loop> loop;
  telemetry::WorkerMetrics metrics;
  tls::EngineScratch tls_scratch;
  tls::RecordBuffer relay_scratch;
  OwnAddresses own;
  net::DnsClient dns;
  net::NameCache names;
  EndpointHealth endpoints;
  SessionTable table;  // whose sessions use the three above
  ExpiryWatch expiry;
  WorkerContext context;
  Drainer drainer;
  net::Timer housekeeping;
  Sweep liveness;
  std::unique_ptr<Listeners> listeners;
  Refusals refusals;
  SourceHold admitted;                              // from Admit to the OnAccept that follows it
  ListenerSpec handed_outbound;                     // no listener: its connections are handed over
  std::array<Gate, base::kDirectionCount> gates{};  // by direction
  Thread state = Thread::kWaiting;
  std::thread thread;
  std::promise<bool> run;  // what `thread` waits for: whether to run the loop
};

Worker::Impl::Impl(unsigned worker_index, const WorkerShared& given,
                   std::unique_ptr<net::Loop> own_loop)
    : index(worker_index),
      shared(given),
      loop(std::move(own_loop)),
      relay_scratch(tls_scratch.input().size() + kRelayScratchExtra),
      dns(*loop, DnsOptions(*shared.config)),
      names(
          *loop,
          [this](const std::string& name, net::DnsClient::Done done) {
            dns.Ask(name, std::move(done));
          },
          [this](net::NameEvent event) { metrics.names[At(ResultOf(event))].Add(1); }),
      endpoints([this] { return loop->Now(); }, metrics),
      table(*loop, (uint64_t{worker_index} << kWorkerIdShift) + 1, [this] { OnCountsChanged(); }),
      expiry(*loop, *shared.clock, [this](uint64_t id) { VisitPeer(id); }),
      context{
          shared,      *loop,
          metrics,     table,
          tls_scratch, relay_scratch,
          own,         nullptr,
          nullptr,     shared.config->resumption ? std::make_shared<tls::TrustState>() : nullptr,
          expiry},
      drainer(*loop,
              {[this] { listeners->Close(base::Direction::kInbound); },
               [this] { EndAll("the drain deadline has come"); }, [this] { return table.size(); }}),
      housekeeping(*loop, [this] { KeepHouse(); }),
      liveness(*loop, kLivenessPeriod,
               {[this] { return table.Ids(); }, [this](uint64_t id) { CheckLiveness(id); }}),
      refusals(context) {
  context.connection_limit = ShareOfLimit(*shared.config);
  context.handshake_limit = HandshakesOfWorker(*shared.config);
  handed_outbound.name = "outbound";
  handed_outbound.direction = base::Direction::kOutbound;
  handed_outbound.handed = true;
  context.names = &names;
  context.endpoints = &endpoints;
}

absl::Status Worker::Impl::Open() {
  absl::StatusOr<std::unique_ptr<Listeners>> opened = Listeners::Open(
      *loop, *shared.config, shared.listener_share,
      [this](const ListenerSpec& via, const net::SocketAddress& peer) { return Admit(via, peer); },
      [this](const ListenerSpec& via, std::unique_ptr<net::Stream> stream,
             const net::SocketAddress& peer) { OnAccept(via, std::move(stream), peer); });
  if (!opened.ok()) {
    return opened.status();
  }
  listeners = *std::move(opened);
  for (const Worker::BoundListener& bound : listeners->bound()) {
    own.Add(bound.address);
  }
  own.AddAdminPorts(*shared.config);
  if (shared.config->intercept != config::InterceptMode::kNone) {
    for (const bool v4 : {true, false}) {  // the rules would lead it back for ever
      own.Add(intercept::ProbeTarget(shared.config->outbound_port, v4));
    }
  }
  housekeeping.StartRepeating(kHousekeepingPeriod);
  liveness.Start();
  return absl::OkStatus();
}

// What an outbound connection comes from is the application of this host.
bool Worker::Impl::Admit(const ListenerSpec& via, const net::SocketAddress& peer) {
  admitted.Release();
  if (shared.limits == nullptr || via.direction == base::Direction::kOutbound) {
    return true;
  }
  const auto refusal = shared.limits->Admit(peer, InboundRoom(context), loop->Now(), admitted);
  if (refusal.has_value()) {
    refusals.Add(via, peer, refusal->reason, refusal->why);
  }
  return !refusal.has_value();
}

// Nobody's connection: it has shown that the rules are in force. One that had to wait for its
// accept was given up meanwhile, which is known by its reset.
bool Worker::Impl::IsProbe(const ListenerSpec& via, const net::Stream& stream,
                           const net::SocketAddress& peer) {
  if (shared.probe == nullptr || via.direction == base::Direction::kInbound ||
      via.tunnel != nullptr || via.takes_requests) {
    return false;
  }
  return shared.probe->Claim(peer) || (peer.ip().IsLoopback() && PeerHasReset(stream));
}

void Worker::Impl::OnAccept(const ListenerSpec& via, std::unique_ptr<net::Stream> stream,
                            const net::SocketAddress& peer) {
  if (IsProbe(via, *stream, peer)) {
    return;
  }
  std::unique_ptr<Session> made;
  if (via.direction == base::Direction::kInbound) {
    made = std::make_unique<InboundSession>(context, via, std::move(stream), peer,
                                            std::move(admitted));
  } else {
    made = std::make_unique<OutboundSession>(context, via, std::move(stream), peer);
  }
  table.Add(std::move(made)).Start();
  CloseGates();
}

// No backlog holds these back, so what is too much is refused.
void Worker::Impl::TakeConnection(HandedConnection handed) {
  // Until here it would have been reset if nobody had taken it.
  const linger in_the_ordinary_way{0, 0};
  setsockopt(handed.connection.get(), SOL_SOCKET, SO_LINGER, &in_the_ordinary_way,
             sizeof(in_the_ordinary_way));
  absl::StatusOr<std::unique_ptr<net::Stream>> stream =
      net::Stream::Adopt(*loop, handed.connection.Release());
  const absl::StatusOr<net::SocketAddress> peer =
      stream.ok() ? (*stream)->PeerAddress() : stream.status();
  if (!peer.ok()) {
    metrics.accept_errors.Add(1);
    return;
  }
  auto made =
      std::make_unique<OutboundSession>(context, handed_outbound, *std::move(stream), *peer);
  made->GoTo(handed.destination, ConnectOutcome(std::move(handed.outcome)));
  const bool full = table.size() >= context.connection_limit;
  Session& session = table.Add(std::move(made));
  if (full) {
    session.End(base::CloseReason::kOverload, "the limit of connections is reached");
  } else {
    session.Start();
  }
  CloseGates();
}

void Worker::Impl::TakeListener(int listening, const net::SocketAddress& target) {
  const absl::Status taken = listeners->Take(*loop, listening, target);
  if (!taken.ok()) {
    spdlog::error("worker {}: the command's port at {} cannot be served: {}", index,
                  target.ToString(), base::Message(taken));
  } else if (gates[At(base::Direction::kInbound)] == Gate::kPaused) {
    listeners->Pause(base::Direction::kInbound);
  }
}

bool Worker::Impl::IsFull(base::Direction direction) const {
  return table.size() >= context.connection_limit ||
         table.handshakes(direction) >= context.handshake_limit;
}

void Worker::Impl::SetGate(base::Direction direction, Gate gate) {
  const bool closes = gate == Gate::kPaused;
  gates[At(direction)] = gate;
  if (shared.probe != nullptr && direction == base::Direction::kOutbound) {
    closes ? shared.probe->GateClosed() : shared.probe->GateOpened();
  }
  closes ? listeners->Pause(direction) : listeners->Resume(direction);
}

// Each direction by itself: clients that stall inbound do not keep the application from dialling.
void Worker::Impl::CloseGates() {
  for (const base::Direction direction : kDirections) {
    if (gates[At(direction)] == Gate::kOpen && IsFull(direction)) {
      SetGate(direction, Gate::kPaused);
      metrics.accept_paused.Add(1);
    }
  }
}

void Worker::Impl::OnCountsChanged() {
  for (const base::Direction direction : kDirections) {
    if (gates[At(direction)] == Gate::kPaused && !IsFull(direction)) {
      SetGate(direction, Gate::kOpen);
    }
  }
  drainer.OnSessionGone();
}

void Worker::Impl::SetIdentity(std::shared_ptr<const identity::IdentitySnapshot> snapshot) {
  const bool bundles_changed =
      context.identity == nullptr || context.identity->snapshot().bundles != snapshot->bundles;
  absl::StatusOr<std::shared_ptr<const WorkerIdentity>> made = WorkerIdentity::Create(
      std::move(snapshot), *shared.clock, context.trust, context.revocations);
  if (!made.ok()) {
    spdlog::error("worker {}: the new certificate cannot be used, the old one stays: {}", index,
                  base::Message(made.status()));
    return;
  }
  context.identity = *std::move(made);
  tls_scratch.Publish(context.identity->client(),
                      context.identity->server(tls::ClientAuth::kRequire));
  if (context.trust != nullptr) {
    const identity::Version& version = context.identity->snapshot().bundle_version;
    context.trust->bundle_epoch = version.epoch;
    context.trust->bundle_sequence = version.sequence;
  }
  table.ForEach([bundles_changed](Session& session) {
    session.IdentityPublished();
    if (bundles_changed) {
      session.Recheck();
    }
  });
}

void Worker::Impl::SetPolicy(std::shared_ptr<const policy::PolicySet> policy) {
  context.policy = std::move(policy);
  if (context.trust != nullptr) {
    context.trust->policy_revision = context.policy->revision();
    ++context.trust->policies_given;
  }
  table.ForEach([](Session& session) { session.Recheck(); });
}

void Worker::Impl::VisitPeer(uint64_t id) {
  if (Session* const session = table.Find(id)) {
    session->VisitPeer();
  }
  CountReauths();
}

void Worker::Impl::CountReauths() {
  const tls::ReauthCounts counts = std::exchange(tls_scratch.reauths(), {});
  const std::array<uint64_t, telemetry::kReauthResultCount> by_result = {
      counts.renewed, counts.unchanged, counts.failed, counts.answered};
  for (size_t i = 0; i < by_result.size(); ++i) {
    if (by_result[i] > 0) {
      metrics.reauthentications[i].Add(by_result[i]);
    }
  }
}

void Worker::Impl::SetRevocations(std::shared_ptr<const x509::RevocationSet> revocations) {
  context.revocations->set = std::move(revocations);
  if (context.trust != nullptr) {
    ++context.trust->revocation_sequence;
  }
  table.ForEach([](Session& session) { session.Recheck(); });
}

void Worker::Impl::KeepHouse() {
  CountReauths();
  endpoints.Sweep();
  metrics.accept_errors.Add(listeners->TakeAcceptErrors());
}

void Worker::Impl::CheckLiveness(uint64_t id) {
  if (Session* const session = table.Find(id)) {
    session->CheckLiveness();
  }
}

void Worker::Impl::EndAll(std::string_view why) {
  table.ForEach([why](Session& session) { session.End(base::CloseReason::kDrainDeadline, why); });
}

std::vector<ConnectionInfo> Worker::Impl::Connections(size_t limit) {
  std::vector<ConnectionInfo> all;
  table.ForEach([&all, limit](Session& session) {
    if (all.size() < limit) {
      all.push_back(session.Info());
    }
  });
  return all;
}

void Worker::Impl::Stop() {
  if (state == Thread::kJoined) {
    return;
  }
  if (state == Thread::kRunning) {
    loop->Post([this] {
      listeners->Close(base::Direction::kInbound);
      listeners->Close(base::Direction::kOutbound);
      EndAll("the proxy was stopped");
      loop->Stop();
    });
  } else {
    run.set_value(false);
  }
  thread.join();
  state = Thread::kJoined;
}

absl::StatusOr<std::unique_ptr<Worker::Impl>> Worker::Impl::Make(unsigned index,
                                                                 const WorkerShared& shared) {
  absl::StatusOr<std::unique_ptr<net::Loop>> loop = net::Loop::Create();
  if (!loop.ok()) {
    return loop.status();
  }
  auto impl = std::make_unique<Impl>(index, shared, *std::move(loop));
  if (absl::Status opened = impl->Open(); !opened.ok()) {
    impl->state = Thread::kJoined;  // there is nothing to join: this is the thread
    return opened;
  }
  return impl;
}

// The loop is made on the thread that runs it: with io_uring, libuv's completions are that
// thread's, and would break off the blocking calls of another.
absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(unsigned index, const WorkerShared& shared) {
  std::promise<absl::StatusOr<std::unique_ptr<Impl>>> promise;
  std::promise<bool> run;
  std::future<absl::StatusOr<std::unique_ptr<Impl>>> made = promise.get_future();
  std::thread thread(
      [index, &shared, promise = std::move(promise), may_run = run.get_future()]() mutable {
        absl::StatusOr<std::unique_ptr<Impl>> impl = Impl::Make(index, shared);
        net::Loop* const loop = impl.ok() ? (*impl)->loop.get() : nullptr;
        promise.set_value(std::move(impl));  // from here on `shared` may be gone
        if (loop != nullptr && may_run.get()) {
          loop->Run();
        }
      });
  absl::StatusOr<std::unique_ptr<Impl>> impl = made.get();
  if (!impl.ok()) {
    thread.join();
    return impl.status();
  }
  (*impl)->thread = std::move(thread);
  (*impl)->run = std::move(run);
  return std::unique_ptr<Worker>(new Worker(*std::move(impl)));
}

Worker::Worker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Worker::~Worker() = default;

void Worker::Start() {
  if (impl_->state == Impl::Thread::kWaiting) {
    impl_->state = Impl::Thread::kRunning;
    impl_->run.set_value(true);
  }
}

void Worker::PublishIdentity(std::shared_ptr<const identity::IdentitySnapshot> snapshot) {
  impl_->loop->Post(
      [impl = impl_.get(), snapshot = std::move(snapshot)] { impl->SetIdentity(snapshot); });
}

void Worker::PublishPolicy(std::shared_ptr<const policy::PolicySet> policy) {
  impl_->loop->Post([impl = impl_.get(), policy = std::move(policy)] { impl->SetPolicy(policy); });
}

void Worker::PublishRevocations(std::shared_ptr<const x509::RevocationSet> revocations) {
  impl_->loop->Post([impl = impl_.get(), revocations = std::move(revocations)] {
    impl->SetRevocations(revocations);
  });
}

// std::function wants what can be copied.
void Worker::TakeConnection(HandedConnection handed) {
  auto shared = std::make_shared<HandedConnection>(std::move(handed));
  impl_->loop->Post([impl = impl_.get(), shared] { impl->TakeConnection(std::move(*shared)); });
}

void Worker::TakeListener(std::shared_ptr<const base::UniqueFd> listening,
                          const net::SocketAddress& target) {
  impl_->loop->Post([impl = impl_.get(), listening = std::move(listening), target] {
    impl->TakeListener(listening->get(), target);
  });
}

void Worker::Drain(std::chrono::milliseconds delay, std::chrono::milliseconds deadline,
                   std::function<void()> done) {
  impl_->loop->Post([impl = impl_.get(), delay, deadline, done = std::move(done)] {
    impl->drainer.Begin(delay, deadline, done);
  });
}

void Worker::Stop() {
  impl_->Stop();
}

void Worker::ListConnections(size_t limit, std::function<void(std::vector<ConnectionInfo>)> done) {
  impl_->loop->Post(
      [impl = impl_.get(), limit, done = std::move(done)] { done(impl->Connections(limit)); });
}

const telemetry::WorkerMetrics& Worker::metrics() const {
  return impl_->metrics;
}

const std::vector<Worker::BoundListener>& Worker::listeners() const {
  return impl_->listeners->bound();
}

}  // namespace postern::session
