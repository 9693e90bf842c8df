// SPDX-License-Identifier: Apache-2.0
#include "control/service/issuer_process.h"

#include <grpcpp/impl/service_type.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>

#include <mutex>

#include "common/base/file.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "common/http/http_server.h"
#include "common/rpc/issuer_server.h"
#include "common/x509/certificate.h"
#include "control/attest/enrolled_key.h"
#include "control/ca/plugged_ca_keeper.h"
#include "control/service/admin_service.h"
#include "control/service/certify_service.h"
#include "control/service/federation.h"
#include "control/service/mesh_service.h"
#include "control/service/revocation_publisher.h"
#include "control/service/staged_rotation.h"
#include "control/service/tcp_listener.h"

namespace postern::service {
namespace {

constexpr int kMaxStreamsPerConnection = 16;
constexpr int kMaxThreads = 32;                 // of the administration's handlers
constexpr int kMaxAdminRequestBytes = 4 << 20;  // a whole set of policy documents comes at once
constexpr int kHandshakeTimeoutMs = 10'000;
constexpr int kIdleConnectionMs = 5 * 60'000;  // without a call; a mesh stream is one
constexpr auto kShutdownGrace = std::chrono::seconds(2);
constexpr absl::Duration kCleanUpPeriod = absl::Minutes(1);
constexpr absl::Duration kRenewalRetry = absl::Seconds(5);
constexpr absl::Duration kClockSetBack = absl::Minutes(1);

void Bound(grpc::ServerBuilder& builder) {
  rpc::ApplyServerLimits(builder);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.SetResourceQuota(grpc::ResourceQuota("issuer").SetMaxThreads(kMaxThreads));
}

void StopServer(std::unique_ptr<grpc::Server>& server) {
  if (server != nullptr) {
    server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server->Wait();
  }
}

}  // namespace

// Members in the order in which they are made; destroyed the other way round.
struct IssuerProcess::Impl {
  Impl(const IssuerConfig& issuer_config, const base::Clock& issuer_clock)
      : config(issuer_config),
        clock(issuer_clock),
        certify_limit(issuer_config.certify_rate, issuer_clock),
        challenges(issuer_clock) {}
  ~Impl();

  absl::Status OpenState();
  absl::Status OpenCa();
  void FollowCa();
  void MakeRotation();
  absl::Status CheckCaAtStart();
  absl::Status RenewOwnCertificate();
  void RenewOwnCertificateIfDue();
  void OnCaChanged();
  absl::Status ListenTcp();
  absl::Status ListenUnix();
  absl::Status ListenAdmin();
  ServiceParts Parts();
  IssuerGauges Gauges() const;
  void AddRevocations(IssuerGauges& gauges) const;
  absl::Status CheckReady() const;

  const IssuerConfig config;
  const base::Clock& clock;
  IssuerCounters counters;
  RateLimiter certify_limit;
  attest::ChallengeTable challenges;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<ca::CaSigner> ca;
  std::unique_ptr<ca::PluggedCaKeeper> plugged_ca;  // null: the CA is our own
  std::unique_ptr<ClientVerdicts> clients;
  std::unique_ptr<attest::AttestorSet> attestor;
  std::unique_ptr<issue::Revocations> revocations;
  std::unique_ptr<issue::Issuer> issuer;
  std::unique_ptr<issue::Registry> registry;
  std::shared_ptr<mesh::MeshState> mesh;
  std::unique_ptr<Federation> federation;
  std::unique_ptr<ca::CaRotation> ca_rotation;  // null: plugged_ca is not
  std::unique_ptr<StagedRotation> rotation;
  std::unique_ptr<RevocationPublisher> revocation_publisher;
  std::unique_ptr<rpc::IssuerServerCredentials> credentials;
  std::unique_ptr<grpc::Service> certify;
  std::unique_ptr<grpc::Service> admin;
  std::unique_ptr<MeshService> mesh_service;
  std::unique_ptr<grpc::Server> tcp_server;
  std::unique_ptr<grpc::Server> unix_server;
  std::unique_ptr<UnixListener> unix_listener;
  std::unique_ptr<TcpListener> tcp_listener;
  std::unique_ptr<http::HttpServer> http;

  std::mutex renewal_mutex;      // a renewal at a time: Tick's, or after a step of a rotation
  mutable std::mutex own_mutex;  // taken after renewal_mutex; the scrape reads what Tick renews
  std::shared_ptr<const ca::SigningSlot> own_signer;  // of the own certificate; null: there is none
  absl::Time own_not_after = absl::InfinitePast();
  absl::Time renewed_own_at = absl::InfinitePast();  // or tried to
  absl::Time renew_own_at = absl::InfinitePast();
  absl::Time retry_own_at = absl::InfinitePast();  // with another CA's
  absl::Duration cleaned_at = absl::ZeroDuration();
};

// The servers go first: calls at work use everything else. The unix listener outlives its accept
// thread's server only in name: destroying it joins the thread, which must not hand connections to
// a server that is gone.
IssuerProcess::Impl::~Impl() {
  if (federation != nullptr) {
    federation->Stop();
  }
  http.reset();
  if (unix_listener != nullptr) {
    unix_listener->Stop();
  }
  if (tcp_listener != nullptr) {
    tcp_listener->Stop();
  }
  StopServer(tcp_server);
  StopServer(unix_server);
}

absl::Status IssuerProcess::Impl::OpenState() {
  if (absl::Status made = base::EnsurePrivateDirectory(config.state_dir); !made.ok()) {
    return made;
  }
  auto opened = store::OpenSqliteStore(config.state_dir, config.trust_domain, clock);
  if (!opened.ok()) {
    return opened.status();
  }
  store = *std::move(opened);
  if (absl::Status opened_ca = OpenCa(); !opened_ca.ok()) {
    return opened_ca;
  }
  clients = std::make_unique<ClientVerdicts>(*ca, clock);
  attestor = std::make_unique<attest::AttestorSet>(
      *store, clock, attest::RenewalRules{.grace = config.renewal_grace},
      attest::MakeEnrolledKeyAttestor(challenges, issue::IssuerId(config.trust_domain)));
  const issue::TtlPolicy ttl{config.svid_ttl, config.allow_short_ttl};
  auto made_issuer = issue::Issuer::Create(ttl, *ca, *store, *attestor, clock);
  if (!made_issuer.ok()) {
    return made_issuer.status();
  }
  issuer = *std::move(made_issuer);
  auto read_revocations = issue::Revocations::Create(*ca, *store, clock);
  if (!read_revocations.ok()) {
    return read_revocations.status();
  }
  revocations = *std::move(read_revocations);
  issuer->SetRevocations(revocations.get());
  if (config.certify_rate > 0) {
    issuer->LimitEntries();
  }
  registry = std::make_unique<issue::Registry>(config.trust_domain, ttl, *store, clock);
  auto state = mesh::MeshState::Create(*store, clock);
  if (!state.ok()) {
    return state.status();
  }
  mesh = *std::move(state);
  auto federated = Federation::Open(config, *ca, *store, *mesh, clock);
  if (!federated.ok()) {
    return federated.status();
  }
  federation = *std::move(federated);
  FollowCa();
  MakeRotation();
  revocation_publisher =
      std::make_unique<RevocationPublisher>(*ca, *store, *revocations, *mesh, clock);
  return absl::OkStatus();
}

absl::Status IssuerProcess::Impl::OpenCa() {
  const ca::CaOptions options{.state_dir = config.state_dir, .trust_domain = config.trust_domain};
  if (config.ca_dir.empty()) {
    if (absl::Status own = ca::PluggedCaKeeper::CheckNotPlugged(config.state_dir); !own.ok()) {
      return own;
    }
    auto signer = ca::CaSigner::Open(options, store->cas(), clock);
    ca = signer.ok() ? *std::move(signer) : nullptr;
    return signer.status();
  }
  ca::PluggedCaOptions plugged{.directory = {config.ca_dir, config.ca_roots, config.ca_key.empty()},
                               .longest_ttl = issue::kMaxTtl};
  if (!config.ca_key.empty()) {
    plugged.token_key = ca::Pkcs11Location{config.ca_key, config.ca_key_pin_file};
  }
  auto opened = ca::PluggedCaKeeper::Open(std::move(plugged), options, store->cas(), clock);
  if (!opened.ok()) {
    return opened.status();
  }
  ca = std::move(opened->signer);
  plugged_ca = std::move(opened->keeper);
  return absl::OkStatus();
}

void IssuerProcess::Impl::FollowCa() {
  if (plugged_ca == nullptr) {
    return;
  }
  // By what is told, not by the version: it goes out under the federation's, which may be higher.
  plugged_ca->SetHooks({.behind = [this](store::Version) { return rotation->Behind(); },
                        .bundles_changed = [this] { OnCaChanged(); }});
}

void IssuerProcess::Impl::MakeRotation() {
  if (plugged_ca == nullptr) {
    ca_rotation = std::make_unique<ca::CaRotation>(*ca, store->cas(), clock);
  }
  const attest::RenewalRules rules{.grace = config.renewal_grace};
  rotation = std::make_unique<StagedRotation>(StagedRotation::Parts{
      .rotation = ca_rotation.get(),
      .signer = ca.get(),
      .certificates = &store->certificates(),
      .mesh = mesh.get(),
      .clock = &clock,
      .on_change = [this] { OnCaChanged(); },
      .automatic = config.ca_auto_rotate,
      .renewal_grace = [rules](absl::Duration life) { return rules.GraceOf(life); },
      .plugged = plugged_ca != nullptr});
}

// After a step of a rotation, on the thread that made it, or when --ca-dir's roots changed. What
// fails here Tick tries again.
void IssuerProcess::Impl::OnCaChanged() {
  if (const absl::Status published = federation->Publish(); !published.ok()) {
    spdlog::warn("bundles not published, to be tried again: {}", base::Message(published));
  }
  RenewOwnCertificateIfDue();
}

// While it runs, an issuer whose CA has expired goes on refusing; it does not begin to.
absl::Status IssuerProcess::Impl::CheckCaAtStart() {
  absl::Status usable = ca->CheckUsable();
  if (usable.ok()) {
    return usable;
  }
  if (plugged_ca != nullptr) {
    return absl::FailedPreconditionError(base::StrCat("--ca-dir: ", base::Message(usable)));
  }
  const absl::Status recovered = rotation->RecoverExpired();
  usable = ca->CheckUsable();
  if (usable.ok()) {
    return usable;
  }
  const std::string database = base::StrCat(config.state_dir, "/", store::kDatabaseFile);
  return absl::FailedPreconditionError(
      base::StrCat("the CA in ", database, " cannot be used: ", base::Message(usable),
                   ". It was not rotated: ", base::Message(recovered),
                   ". If this machine's clock is wrong, set it. Else begin with a new root: move ",
                   database, "* and ", config.state_dir,
                   "/keys away, start again, create the entries again, and give each "
                   "proxy the new root (postern bundle show) and a new join token"));
}

absl::Status IssuerProcess::Impl::RenewOwnCertificate() {
  const std::lock_guard<std::mutex> renewing(renewal_mutex);
  // Before the certificate: if a rotation comes between, the next look finds it of the old CA.
  const std::shared_ptr<const ca::SigningSlot> slot = ca->current();
  const absl::StatusOr<std::shared_ptr<const x509::Svid>> own = issuer->IssueOwnSvid();
  if (!own.ok()) {
    return own.status();
  }
  if (credentials == nullptr) {
    auto made = rpc::IssuerServerCredentials::Create(**own, slot->root.get());
    if (!made.ok()) {
      return made.status();
    }
    credentials = *std::move(made);
  } else if (absl::Status replaced = credentials->Replace(**own, slot->root.get());
             !replaced.ok()) {
    return replaced;
  }
  if (absl::Status set = federation->SetOwnSvid(**own); !set.ok()) {
    return set;
  }
  const std::lock_guard<std::mutex> lock(own_mutex);
  own_signer = slot;
  own_not_after = (*own)->not_after();
  renewed_own_at = clock.Now();
  renew_own_at = renewed_own_at + (own_not_after - renewed_own_at) / 2;
  return absl::OkStatus();
}

// At half its life, or when another CA signs.
void IssuerProcess::Impl::RenewOwnCertificateIfDue() {
  const absl::Time wall = clock.Now();
  {
    const std::lock_guard<std::mutex> lock(own_mutex);
    if (own_signer == nullptr) {
      return;  // not started yet
    }
    // A clock that was ahead and was put right leaves a certificate of the future.
    const bool due = wall >= renew_own_at || wall < renewed_own_at - kClockSetBack;
    const bool another_ca = own_signer != ca->current() && wall >= retry_own_at;
    if (!due && !another_ca) {
      return;
    }
  }
  const absl::Status renewed = RenewOwnCertificate();
  if (!renewed.ok()) {
    spdlog::error("own certificate not renewed, the old one goes on: {}", base::Message(renewed));
    const std::lock_guard<std::mutex> lock(own_mutex);
    renewed_own_at = wall;
    renew_own_at = wall + kRenewalRetry;
    retry_own_at = renew_own_at;
  }
}

ServiceParts IssuerProcess::Impl::Parts() {
  return {.issuer = issuer.get(),
          .ca = ca.get(),
          .store = store.get(),
          .attestor = attestor.get(),
          .challenges = &challenges,
          .mesh = mesh,
          .clients = clients.get(),
          .revocations = revocations.get(),
          .revocation_publisher = revocation_publisher.get(),
          .certify_limit = &certify_limit,
          .counters = &counters,
          .unix_listener = unix_listener.get(),
          .clock = &clock,
          .rotation = rotation.get(),
          .federation = federation.get()};
}

absl::Status IssuerProcess::Impl::ListenTcp() {
  auto listener = TcpListener::Listen(
      config.listen,
      {.total = config.max_connections, .per_source = config.max_connections_per_source}, clock);
  if (!listener.ok()) {
    return absl::UnavailableError(base::StrCat(
        "--listen: cannot listen on ", base::JoinHostPort(config.listen.host, config.listen.port),
        ": ", base::Message(listener.status())));
  }
  grpc::ServerBuilder builder;
  Bound(builder);
  // Of gRPC's own two minutes a connection that says nothing would hold its place for the longest.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleConnectionMs);
  auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      credentials->credentials());
  builder.RegisterService(certify.get());
  builder.RegisterService(mesh_service->service());
  tcp_server = builder.BuildAndStart();
  if (tcp_server == nullptr) {
    return absl::InternalError("the server of the TCP port did not start");
  }
  tcp_listener = *std::move(listener);
  tcp_listener->Serve(std::move(acceptor));
  return absl::OkStatus();
}

absl::Status IssuerProcess::Impl::ListenUnix() {
  grpc::ServerBuilder builder;
  Bound(builder);
  builder.SetMaxReceiveMessageSize(kMaxAdminRequestBytes);
  builder.RegisterService(certify.get());
  builder.RegisterService(admin.get());
  builder.RegisterService(mesh_service->service());
  unix_server = builder.BuildAndStart();
  if (unix_server == nullptr) {
    return absl::InternalError("the server of the unix socket did not start");
  }
  unix_listener->Serve(*unix_server);
  return absl::OkStatus();
}

absl::Status IssuerProcess::Impl::ListenAdmin() {
  auto started = http::HttpServer::Start(
      config.admin.host, config.admin.port, http::HostCheck::kNone,
      [this](std::string_view path) -> std::optional<http::Reply> {
        if (path == "/live") {
          return http::Ok(http::kText, "live\n");
        }
        if (path == "/ready") {
          const absl::Status ready = CheckReady();
          return ready.ok() ? http::Ok(http::kText, "ready\n")
                            : http::Reply{503, std::string(http::kText),
                                          base::StrCat("not ready: ", base::Message(ready), "\n")};
        }
        if (path == "/metrics") {
          return http::Ok(http::kPrometheus, IssuerMetricsText(counters, Gauges()));
        }
        return std::nullopt;
      });
  if (!started.ok()) {
    return absl::UnavailableError(base::StrCat("--admin: ", base::Message(started.status())));
  }
  http = *std::move(started);
  return absl::OkStatus();
}

absl::Status IssuerProcess::Impl::CheckReady() const {
  if (absl::Status usable = ca->CheckUsable(); !usable.ok()) {
    return usable;
  }
  {
    const std::lock_guard<std::mutex> lock(own_mutex);
    if (clock.Now() >= own_not_after) {
      return absl::FailedPreconditionError("the issuer's own certificate has expired");
    }
  }
  return store->Probe();
}

IssuerGauges IssuerProcess::Impl::Gauges() const {
  IssuerGauges gauges;
  gauges.streams = mesh->connected();
  gauges.subscriptions = mesh->subscriptions();
  if (tcp_listener != nullptr) {
    const ListenerCounters& connections = tcp_listener->counters();
    gauges.connections = connections.open.load();
    gauges.refused_total_limit = connections.refused_total_limit.load();
    gauges.refused_source_limit = connections.refused_source_limit.load();
  }
  gauges.store_errors = store->error_count();
  const store::Version bundles = mesh->bundles()->version;
  const store::Version policy = mesh->policy()->version;
  gauges.bundle_epoch = bundles.epoch;
  gauges.bundle_sequence = bundles.sequence;
  gauges.policy_epoch = policy.epoch;
  gauges.policy_sequence = policy.sequence;
  AddRevocations(gauges);
  const std::shared_ptr<const ca::SigningSlot> slot = ca->current();
  gauges.root_not_after = x509::NotAfter(slot->root.get());
  gauges.intermediate_not_after = x509::NotAfter(slot->chain.front().get());
  if (plugged_ca != nullptr) {
    gauges.plugged_ca = plugged_ca->status();
  } else {
    gauges.root_key_present = ca->root_key_present();
  }
  if (absl::StatusOr<RotationGauges> stands = rotation->Gauges(); stands.ok()) {
    gauges.rotation = *std::move(stands);
  }
  gauges.ready = CheckReady().ok();
  gauges.federated = federation->Foreign();
  gauges.bundles_served = federation->endpoint_served();
  gauges.now = clock.Now();
  const std::lock_guard<std::mutex> lock(own_mutex);
  gauges.own_not_after = own_not_after;
  return gauges;
}

void IssuerProcess::Impl::AddRevocations(IssuerGauges& gauges) const {
  const std::shared_ptr<const store::RevocationList> list = revocations->list();
  gauges.revocation_epoch = list->version.epoch;
  gauges.revocation_sequence = list->version.sequence;
  for (const x509::Revocation& one : list->revocations) {
    ++gauges.revocations[static_cast<size_t>(one.by)];
  }
  const mesh::MeshState::Followed followed =
      mesh->AwaitRevocations(list->version, absl::ZeroDuration());
  gauges.revocations_not_followed = followed.connected - followed.acknowledged;
}

absl::StatusOr<std::unique_ptr<IssuerProcess>> IssuerProcess::Start(const IssuerConfig& config,
                                                                    const base::Clock& clock) {
  auto impl = std::make_unique<Impl>(config, clock);
  if (absl::Status opened = impl->OpenState(); !opened.ok()) {
    return opened;
  }
  if (absl::Status usable = impl->CheckCaAtStart(); !usable.ok()) {
    return usable;
  }
  if (absl::Status renewed = impl->RenewOwnCertificate(); !renewed.ok()) {
    return renewed;
  }
  if (absl::Status published = impl->revocation_publisher->Publish(); !published.ok()) {
    return published;
  }
  absl::StatusOr<std::unique_ptr<UnixListener>> listener = UnixListener::Listen(config.socket);
  if (!listener.ok()) {
    return absl::Status(listener.status().code(),
                        base::StrCat("--socket: ", base::Message(listener.status())));
  }
  impl->unix_listener = *std::move(listener);
  impl->certify = MakeCertifyService(impl->Parts());
  impl->admin = MakeAdminService(impl->Parts(), *impl->registry);
  impl->mesh_service = std::make_unique<MeshService>(impl->Parts());
  for (const auto step : {&Impl::ListenTcp, &Impl::ListenUnix, &Impl::ListenAdmin}) {
    if (absl::Status done = (*impl.*step)(); !done.ok()) {
      return done;
    }
  }
  impl->federation->Start();
  return std::unique_ptr<IssuerProcess>(new IssuerProcess(std::move(impl)));
}

IssuerProcess::IssuerProcess(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

IssuerProcess::~IssuerProcess() = default;

void IssuerProcess::Tick() {
  const absl::Duration now = impl_->clock.SinceBoot();
  if (impl_->plugged_ca != nullptr) {
    impl_->plugged_ca->Tick();
  }
  impl_->rotation->Tick();
  impl_->RenewOwnCertificateIfDue();
  impl_->federation->Tick();
  if (const absl::Status published = impl_->revocation_publisher->Publish(); !published.ok()) {
    spdlog::error("{}", base::Message(published));
  }
  if (const absl::Status kept = impl_->mesh->Maintain(); !kept.ok()) {
    spdlog::warn("connected proxies not stored: {}", base::Message(kept));
  }
  if (now - impl_->cleaned_at >= kCleanUpPeriod) {
    impl_->cleaned_at = now;
    if (const absl::Status cleaned = impl_->registry->CleanUp(); !cleaned.ok()) {
      spdlog::warn("store not cleaned up: {}", base::Message(cleaned));
    }
    if (const absl::StatusOr<bool> forgot = impl_->revocations->CleanUp(); !forgot.ok()) {
      spdlog::warn("revocations not cleaned up: {}", base::Message(forgot.status()));
    }
    // After a change of the entries the mesh reads them again; where the store failed just then,
    // this makes up for it.
    if (const absl::Status read = impl_->mesh->ReloadEntries(); !read.ok()) {
      spdlog::warn("entries not read again: {}", base::Message(read));
    }
  }
}

absl::Status IssuerProcess::CheckReady() const {
  return impl_->CheckReady();
}

std::string IssuerProcess::Metrics() const {
  return IssuerMetricsText(impl_->counters, impl_->Gauges());
}

uint16_t IssuerProcess::grpc_port() const {
  return impl_->tcp_listener->port();
}

uint16_t IssuerProcess::admin_port() const {
  return impl_->http->port();
}

uint16_t IssuerProcess::bundle_endpoint_port() const {
  return impl_->federation->endpoint_port();
}

}  // namespace postern::service
