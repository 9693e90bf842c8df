// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/identity_manager.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/base/with_flag.h"
#include "common/x509/root_life.h"
#include "proxy/identity/describe_snapshot.h"
#include "proxy/identity/endpoint_cache.h"
#include "proxy/identity/file_source.h"
#include "proxy/identity/issuer_source.h"
#include "proxy/identity/member_key.h"
#include "proxy/identity/policy_keeper.h"
#include "proxy/identity/revocation_keeper.h"
#include "proxy/identity/seen_list.h"
#include "proxy/identity/source.h"
#include "proxy/identity/state_dir.h"
#include "proxy/identity/trust_clock.h"
#include "proxy/identity/watched_file.h"
#include "proxy/net/file_watch.h"
#include "proxy/net/timer.h"

namespace postern::identity {
namespace {

absl::StatusOr<std::shared_ptr<const config::DestinationSet>> LoadDestinations(
    const std::string& file) {
  const auto content = base::ReadFile(file);
  if (!content.ok()) {
    return content.status();
  }
  auto set = config::DestinationSet::FromYaml(*content, file);
  if (!set.ok()) {
    return set.status();
  }
  return std::make_shared<const config::DestinationSet>(*std::move(set));
}

// The files that are read again while the proxy runs.
std::vector<std::string> FilesToWatch(const config::ProxyConfig& config) {
  std::vector<std::string> paths;
  for (const std::string& path : {config.svid_file, config.svid_key_file, config.bundle_file,
                                  config.policy_file, config.destinations_file}) {
    if (!path.empty()) {
      paths.push_back(path);
    }
  }
  paths.insert(paths.end(), config.crl_paths.begin(), config.crl_paths.end());
  return paths;
}

// The ports on which this proxy takes mesh connections.
std::vector<uint16_t> ServingPorts(const config::ProxyConfig& config) {
  if (config.intercept != config::InterceptMode::kNone || config.handover_fd >= 0) {
    return {0};
  }
  std::vector<uint16_t> ports;
  for (const config::TunnelSpec& tunnel : config.tunnels) {
    if (tunnel.direction == base::Direction::kInbound && tunnel.client_auth &&
        !tunnel.listen.is_unix() && tunnel.listen.port != 0) {
      ports.push_back(tunnel.listen.port);
    }
  }
  return ports;
}

// What is configured about the issuer's trust domain and how it is known.
absl::StatusOr<IssuerSource::Options> IssuerOptions(const config::ProxyConfig& config) {
  IssuerSource::Options options;
  options.target = config.issuer;
  options.files = {config.join_token_file, config.member_key_file};
  options.serving = ServingPorts(config);
  options.own_policy = !config.policy_file.empty();
  if (!config.member_key_file.empty()) {
    // It is read again whenever it is needed; what is wrong with it is better said now.
    if (const auto key = MemberKey::Load(config.member_key_file); !key.ok()) {
      return base::WithFlag("--member-key", key.status());
    }
  }
  if (!config.state_dir.empty()) {
    auto opened = StateDir::Open(config.state_dir);
    if (!opened.ok()) {
      return base::WithFlag("--state-dir", opened.status());
    }
    options.state_dir = *std::move(opened);
  }
  if (!config.trust_domain.empty()) {
    auto parsed = x509::TrustDomain::Parse(config.trust_domain);
    if (!parsed.ok()) {
      return base::WithFlag("--trust-domain", parsed.status());
    }
    options.trust_domain = *std::move(parsed);
  } else if (options.state_dir.has_value()) {
    if (const auto svid = options.state_dir->LoadSvid(); svid.ok()) {
      options.trust_domain = svid->id().trust_domain();
    }
  }
  if (!config.issuer_pin.empty()) {
    base::Sha256Digest pin;
    if (config.issuer_pin.size() != pin.size()) {
      return absl::InvalidArgumentError("--issuer-pin: not a SHA-256");
    }
    std::copy(config.issuer_pin.begin(), config.issuer_pin.end(), pin.begin());
    options.pin = pin;
  }
  return options;
}

// A bundle file belongs to the trust domain that is configured; without one, a bundle map of one
// trust domain tells it.
absl::Status AddIssuerBundle(const std::string& file, IssuerSource::Options& options) {
  const auto content = base::ReadFile(file);
  if (!content.ok()) {
    return base::WithFlag("--issuer-bundle", content.status());
  }
  // Only a map is read without knowing the trust domain: what else would be found belongs to this
  // name, which nobody can have, and is refused below.
  const auto placeholder = x509::TrustDomain::Parse("unknown.invalid").value();
  auto bundles =
      x509::TrustBundleSet::FromFileContent(*content, options.trust_domain.value_or(placeholder));
  if (!bundles.ok()) {
    return base::WithFlag("--issuer-bundle", bundles.status());
  }
  if (!options.trust_domain.has_value() && bundles->bundles().size() == 1 &&
      bundles->Find(placeholder.name()) == nullptr) {
    options.trust_domain = bundles->bundles().begin()->second.trust_domain();
  }
  options.bundles = std::make_shared<const x509::TrustBundleSet>(*std::move(bundles));
  return absl::OkStatus();
}

absl::Status CheckIssuerTrust(const IssuerSource::Options& options) {
  if (options.target.starts_with("unix:")) {
    return absl::OkStatus();
  }
  if (!options.trust_domain.has_value()) {
    return absl::InvalidArgumentError(
        "--trust-domain: needed, because neither the bundle nor the state directory tells it");
  }
  if (options.bundles == nullptr && !options.pin.has_value()) {
    return absl::InvalidArgumentError("--issuer: needs --issuer-bundle or --issuer-pin");
  }
  if (options.bundles != nullptr &&
      options.bundles->Find(options.trust_domain->name()) == nullptr) {
    return absl::InvalidArgumentError(
        base::StrCat("--issuer-bundle: holds no bundle of ", options.trust_domain->name()));
  }
  return absl::OkStatus();
}

}  // namespace

class IdentityManager::Impl final : public SourceSink {
 public:
  Impl(const config::ProxyConfig& config, net::Loop& main, const base::Clock& clock,
       Callbacks callbacks)
      : clock_(clock),
        callbacks_(std::move(callbacks)),
        times_(config.max_stale.count() > 0 ? absl::FromChrono(config.max_stale)
                                            : absl::InfiniteDuration()),
        seen_(config.state_dir.empty() ? std::string() : config.state_dir + "/seen_mesh.txt"),
        endpoints_(main, clock, &seen_),
        policy_(clock, PolicyFrom(config), config.policy_file,
                [this](std::shared_ptr<const policy::PolicySet> set) {
                  callbacks_.on_policy(std::move(set));
                }),
        revocations_(clock, config.crl_paths,
                     [this](std::shared_ptr<const x509::RevocationSet> set) {
                       if (callbacks_.on_revocations) {
                         callbacks_.on_revocations(std::move(set));
                       }
                     }),
        destinations_file_(config.destinations_file),
        destinations_watch_(clock, config.destinations_file.empty()
                                       ? std::vector<std::string>{}
                                       : std::vector<std::string>{config.destinations_file}),
        poll_(main, [this] { Poll(); }),
        watched_files_(FilesToWatch(config)),
        events_(main, watched_files_, [this] { OnFileEvent(); }) {}

  ~Impl() override { SaveSeen(); }  // of the time since the last poll

  absl::Status Load(const config::ProxyConfig& config, net::Loop& main);
  void Start();
  void Reload();
  void Renew() {
    if (source_ != nullptr) {
      source_->Renew();
    }
  }

  // SourceSink
  void OnIdentity(std::shared_ptr<const x509::Svid> svid,
                  std::shared_ptr<const x509::TrustBundleSet> bundles,
                  const Version& bundle_version) override;
  absl::Status OnPolicyDocuments(std::vector<policy::NamedYaml> documents,
                                 const Version& version) override;
  void OnRevocations(std::vector<x509::Revocation> revocations, const Version& version) override {
    revocations_.SetList(std::move(revocations), version);
    RefreshStatus();
  }
  void OnSourceChanged() override { RefreshStatus(); }

  EndpointDirectory& endpoints() { return endpoints_; }
  const SeenList& seen() const { return seen_; }
  absl::Status ForgetSeen(const std::optional<SeenKey>& destination);
  const base::Clock& clock() const { return clock_; }
  const TrustClock& times() const { return times_; }
  IdentityStatus status() const;
  std::shared_ptr<const IdentitySnapshot> snapshot() const {
    const std::lock_guard lock(mutex_);
    return snapshot_;
  }

 private:
  enum class Phase : uint8_t { kLoading, kStarted };

  static PolicyKeeper::From PolicyFrom(const config::ProxyConfig& config) {
    if (!config.policy_file.empty()) {
      return PolicyKeeper::From::kFile;
    }
    return config.issuer.empty() ? PolicyKeeper::From::kSameTrustDomain
                                 : PolicyKeeper::From::kIssuer;
  }
  void Poll();
  void WatchFiles();
  void OnFileEvent();
  void RemindOfRoots();
  void ReloadDestinations();
  void SaveSeen();
  void RefreshStatus();
  void Announce();

  const base::Clock& clock_;
  const Callbacks callbacks_;
  TrustClock times_;
  SeenList seen_;
  EndpointCache endpoints_;
  PolicyKeeper policy_;
  RevocationKeeper revocations_;
  const std::string destinations_file_;
  WatchedFiles destinations_watch_;
  absl::Status destinations_result_, seen_result_;
  uint64_t destinations_failures_ = 0;
  net::Timer poll_;
  const std::vector<std::string> watched_files_;
  net::FileWatch events_;
  std::unique_ptr<Source> source_;
  Phase phase_ = Phase::kLoading;
  IdentityStatus identity_described_;  // what the status says of the snapshot; main loop
  x509::RootReminder roots_;           // main loop

  mutable std::mutex mutex_;
  std::shared_ptr<const IdentitySnapshot> snapshot_;  // guarded by mutex_; written on the main loop
  IdentityStatus status_;                             // guarded by mutex_
};

absl::Status IdentityManager::Impl::Load(const config::ProxyConfig& config, net::Loop& main) {
  if (auto status = policy_.LoadFirst(); !status.ok()) {
    return base::WithFlag("--policy", status);
  }
  if (auto status = revocations_.LoadFirst(); !status.ok()) {
    return base::WithFlag("--crl", status);
  }
  if (!destinations_file_.empty()) {
    auto loaded = LoadDestinations(destinations_file_);
    if (!loaded.ok()) {
      return base::WithFlag("--destinations", loaded.status());
    }
    endpoints_.SetStatic(*std::move(loaded));
  }
  if (!config.state_dir.empty()) {
    if (auto status = base::EnsurePrivateDirectory(config.state_dir); !status.ok()) {
      return base::WithFlag("--state-dir", status);
    }
  }
  if (auto status = seen_.Reload(); !status.ok()) {
    return base::WithFlag("--state-dir", status);
  }
  endpoints_.ReviewSeen();
  if (!config.svid_file.empty()) {
    auto files = std::make_unique<FileSource>(
        main, clock_, FileSource::Files{config.svid_file, config.svid_key_file, config.bundle_file},
        *this);
    absl::Status status = files->LoadFirst();
    source_ = std::move(files);
    return status;
  }
  if (config.issuer.empty()) {
    return absl::OkStatus();
  }
  auto options = IssuerOptions(config);
  if (!options.ok()) {
    return options.status();
  }
  if (!config.issuer_bundle_file.empty()) {
    if (auto status = AddIssuerBundle(config.issuer_bundle_file, *options); !status.ok()) {
      return status;
    }
  }
  if (auto status = CheckIssuerTrust(*options); !status.ok()) {
    return status;
  }
  source_ = std::make_unique<IssuerSource>(main, clock_, SystemRandom(), *std::move(options),
                                           endpoints_, seen_, times_, *this);
  return absl::OkStatus();
}

void IdentityManager::Impl::Start() {
  phase_ = Phase::kStarted;
  policy_.Start();
  revocations_.Start();
  Announce();  // what Load found
  if (source_ != nullptr) {
    source_->Start();
  }
  poll_.StartRepeating(absl::ToChronoMilliseconds(WatchedFiles::kPollEvery));
  WatchFiles();
  RefreshStatus();
}

void IdentityManager::Impl::Reload() {
  policy_.Reload();
  revocations_.Reload();
  ReloadDestinations();
  if (auto status = seen_.Reload(); !status.ok()) {
    spdlog::error("{}", base::Message(status));
  }
  endpoints_.ReviewSeen();
  if (source_ != nullptr) {
    source_->Reload();
  }
  RefreshStatus();
}

void IdentityManager::Impl::Poll() {
  policy_.Poll();
  revocations_.Poll();
  if (!destinations_file_.empty() && destinations_watch_.Poll()) {
    ReloadDestinations();
  }
  RemindOfRoots();
  SaveSeen();
  RefreshStatus();
}

// Half of a root's life is enough to bring the next one everywhere; the last week is not.
void IdentityManager::Impl::RemindOfRoots() {
  const auto current = snapshot();
  if (current == nullptr) {
    return;
  }
  for (const x509::AgingRoot& root : roots_.Look(*current->bundles, clock_.Now())) {
    spdlog::warn("{}: its trust domain needs the next one before that", root.Sentence());
  }
}

// What static destinations and names have added; what the issuer's answers add is saved with them.
void IdentityManager::Impl::SaveSeen() {
  const absl::Status saved = seen_.Save();
  if (!saved.ok() && saved != seen_result_) {
    spdlog::error("{}", base::Message(saved));
  }
  seen_result_ = saved;
}

absl::Status IdentityManager::Impl::ForgetSeen(const std::optional<SeenKey>& destination) {
  absl::Status forgotten = destination.has_value() ? seen_.Forget(*destination) : seen_.ForgetAll();
  endpoints_.ReviewSeen();
  RefreshStatus();
  return forgotten;
}

void IdentityManager::Impl::WatchFiles() {
  if (watched_files_.empty()) {
    return;
  }
  if (const absl::Status status = events_.Start(); !status.ok()) {
    spdlog::info("changed files are found by a timer alone: {}", base::Message(status));
  }
}

void IdentityManager::Impl::OnFileEvent() {
  if (source_ != nullptr) {
    source_->OnFileEvent();
  }
  Poll();
}

void IdentityManager::Impl::ReloadDestinations() {
  if (destinations_file_.empty()) {
    return;
  }
  auto loaded = LoadDestinations(destinations_file_);
  const absl::Status result = loaded.status();
  if (result.ok()) {
    endpoints_.SetStatic(*std::move(loaded));
  } else if (result != destinations_result_) {
    ++destinations_failures_;
    spdlog::error("the destinations are refused, the last good ones go on: {}",
                  base::Message(result));
  }
  destinations_result_ = result;
}

void IdentityManager::Impl::OnIdentity(std::shared_ptr<const x509::Svid> svid,
                                       std::shared_ptr<const x509::TrustBundleSet> bundles,
                                       const Version& bundle_version) {
  const auto former = snapshot();
  auto next = std::make_shared<IdentitySnapshot>();
  next->obtained = former != nullptr && former->svid == svid ? former->obtained : clock_.Now();
  next->svid = std::move(svid);
  next->bundles = std::move(bundles);
  next->bundle_version = bundle_version;
  next->generation = former == nullptr ? 1 : former->generation + 1;
  next->ticket_secret = TicketSecret::Make();
  if (next->ticket_secret == nullptr) {
    spdlog::error("no random bytes for session tickets: until the next renewal none are given");
  }
  revocations_.SetTrust(next->bundles, next->svid);  // before anybody can use the identity
  identity_described_ = {};
  DescribeSnapshot(*next, identity_described_);
  {
    const std::lock_guard lock(mutex_);
    snapshot_ = next;
  }
  RemindOfRoots();
  if (phase_ == Phase::kStarted) {
    Announce();
    RefreshStatus();
  }
}

// The identity before the policy: a worker without identity lets nobody in.
void IdentityManager::Impl::Announce() {
  if (const auto current = snapshot(); current != nullptr) {
    callbacks_.on_identity(current);
    policy_.SetWorkload(current->svid->id());
  }
}

absl::Status IdentityManager::Impl::OnPolicyDocuments(std::vector<policy::NamedYaml> documents,
                                                      const Version& version) {
  absl::Status applied = policy_.SetDocuments(std::move(documents), version);
  RefreshStatus();
  return applied;
}

IdentityStatus IdentityManager::Impl::status() const {
  IdentityStatus status;
  {
    const std::lock_guard lock(mutex_);
    status = status_;
  }
  const absl::Duration now = clock_.SinceBoot();
  for (const TrustKind kind : kTrustKinds) {
    const auto index = static_cast<size_t>(kind);
    if (const auto& confirmed = status.confirmed[index]; confirmed.has_value()) {
      status.ages[index] = now - *confirmed;
    }
  }
  if (times_.IsStale(now)) {
    status.stale_error = times_.StaleText(now);
  }
  return status;
}

void IdentityManager::Impl::RefreshStatus() {
  IdentityStatus next = identity_described_;
  if (source_ != nullptr) {
    source_->Describe(next);
  }
  policy_.Describe(next);
  revocations_.Describe(next);
  next.reload_failures += destinations_failures_;
  if (next.reload_error.empty()) {
    next.reload_error = std::string(base::Message(destinations_result_));
  }
  next.endpoint_subscriptions = endpoints_.size();
  next.seen_in_mesh = seen_.size();
  next.roots_past_half_life = roots_.count();
  const std::lock_guard lock(mutex_);
  status_ = std::move(next);
}

IdentityManager::IdentityManager(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IdentityManager::~IdentityManager() = default;

absl::StatusOr<std::unique_ptr<IdentityManager>> IdentityManager::Create(
    const config::ProxyConfig& config, net::Loop& main, const base::Clock& clock,
    Callbacks callbacks) {
  auto impl = std::make_unique<Impl>(config, main, clock, std::move(callbacks));
  if (auto status = impl->Load(config, main); !status.ok()) {
    return status;
  }
  return std::unique_ptr<IdentityManager>(new IdentityManager(std::move(impl)));
}

void IdentityManager::Start() {
  impl_->Start();
}
void IdentityManager::Reload() {
  impl_->Reload();
}
void IdentityManager::Renew() {
  impl_->Renew();
}
EndpointDirectory& IdentityManager::directory() {
  return impl_->endpoints();
}
IdentityStatus IdentityManager::status() const {
  return impl_->status();
}
std::shared_ptr<const IdentitySnapshot> IdentityManager::snapshot() const {
  return impl_->snapshot();
}

const TrustClock& IdentityManager::times() const {
  return impl_->times();
}

bool IdentityManager::HasUsableIdentity() const {
  return CheckUsable().ok();
}

absl::Status IdentityManager::CheckUsable() const {
  const auto current = impl_->snapshot();
  if (current == nullptr) {
    const std::string withheld = impl_->status().withheld;
    return absl::FailedPreconditionError(withheld.empty() ? "none has come yet" : withheld);
  }
  const absl::Status usable = current->svid->CheckUsable(impl_->clock().Now());
  if (usable.ok()) {
    return usable;
  }
  return {usable.code(), base::ToAbsl(base::StrCat(base::Message(usable), times().SkewRemark()))};
}

absl::Status IdentityManager::CheckFresh() const {
  const absl::Duration now = impl_->clock().SinceBoot();
  return times().IsStale(now) ? absl::FailedPreconditionError(times().StaleText(now))
                              : absl::OkStatus();
}

bool IdentityManager::HearsIssuer() const {
  return times().WasConfirmedWithin(kIssuerHeardFor, impl_->clock().SinceBoot());
}

std::vector<std::string> IdentityManager::SeenInMesh() const {
  std::vector<std::string> seen;
  for (const SeenKey& key : impl_->seen().keys()) {
    seen.push_back(key.ToString());
  }
  std::sort(seen.begin(), seen.end());
  return seen;
}

absl::Status IdentityManager::ForgetSeen(std::string_view destination) {
  if (destination == "all") {
    return impl_->ForgetSeen(std::nullopt);
  }
  const auto key = SeenList::ParseKey(destination);
  return key.has_value() ? impl_->ForgetSeen(key)
                         : absl::InvalidArgumentError(
                               "write the destination as 192.0.2.7:5432, [2001:db8::7]:5432 or "
                               "db.example.org:5432, or all");
}

bool IdentityManager::HasPolicy() const {
  return impl_->status().policy_loaded;
}

}  // namespace postern::identity
