// SPDX-License-Identifier: Apache-2.0
#include "control/service/federation.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"
#include "control/federation/bundle_endpoint.h"
#include "control/federation/certificate_files.h"

namespace postern::service {
namespace {

using federation::BundleEndpoint;
using federation::CertificateFiles;
using federation::ForeignBundles;
using federation::ForeignStatus;

constexpr auto kPeriod = std::chrono::seconds(1);
constexpr absl::Duration kReloadPeriod = absl::Seconds(5);

// The store's epoch (milliseconds since 1970) in front, so that a restored backup goes on upwards;
// the whole below 2^53, which is what JSON numbers hold for everybody.
constexpr int kSequenceBits = 20;
uint64_t SpiffeSequence(const store::Version& version) {
  const uint64_t most = (uint64_t{1} << kSequenceBits) - 1;
  return (version.epoch / 1000) << kSequenceBits | std::min(version.sequence, most);
}

// Over each name and root with its length, so that no two sets run into the same bytes.
base::Sha256Digest DigestOf(const std::vector<mesh::TrustDomainRoots>& bundles) {
  std::string text;
  for (const mesh::TrustDomainRoots& one : bundles) {
    for (const auto* const values : {&one.root_der, &one.retired_root_sha256}) {
      base::StrAppend(text, one.trust_domain, ";", values->size(), ";");
      for (const std::string& value : *values) {
        base::StrAppend(text, value.size(), ":", value);
      }
    }
  }
  return x509::Sha256(base::AsBytes(text));
}

}  // namespace

mesh::TrustDomainRoots RootsOf(const x509::TrustBundle& bundle) {
  mesh::TrustDomainRoots roots{bundle.trust_domain().name(), {}};
  for (const x509::X509Ptr& root : bundle.roots()) {
    roots.root_der.push_back(x509::CertificateToDer(root.get()));
  }
  for (const base::Sha256Digest& digest : bundle.retired_roots()) {
    roots.retired_root_sha256.emplace_back(base::AsText(digest));
  }
  return roots;
}

// Members in the order in which they are made; destroyed the other way round.
struct Federation::Impl {
  Impl(const IssuerConfig& issuer_config, const ca::CaSigner& signer, store::Store& the_store,
       mesh::MeshState& the_mesh, const base::Clock& the_clock)
      : config(issuer_config), ca(signer), store(the_store), mesh(the_mesh), clock(the_clock) {}

  absl::Status OpenForeign();
  absl::Status OpenEndpoint();
  absl::Status Publish();
  void Run();

  const IssuerConfig& config;
  const ca::CaSigner& ca;
  store::Store& store;
  mesh::MeshState& mesh;
  const base::Clock& clock;
  std::atomic<bool> stopping{false};
  std::unique_ptr<BundleEndpoint> endpoint;           // null: none
  std::optional<CertificateFiles> certificate_files;  // nullopt: the issuer's own
  std::unique_ptr<ForeignBundles> foreign;

  std::mutex publish_mutex;             // one at a time: the last one has the newest state
  std::atomic<bool> publish_due{true};  // the last one failed, or there was none
  absl::Duration reloaded_at = absl::ZeroDuration();
  std::string reload_error;  // of the last reload, so that it is said once

  std::mutex mutex;
  std::condition_variable stop;
  std::thread thread;
};

absl::Status Federation::Impl::OpenForeign() {
  ForeignBundles::Options options{.own = config.trust_domain, .specs = config.federate};
  options.own_bundles = [this] { return ca.bundles(); };
  options.fetch = [this](const federation::HttpsUrl& url, const federation::ServerTrust& trust) {
    return federation::HttpsGet(url, trust, clock, &stopping);
  };
  auto opened = ForeignBundles::Create(std::move(options), store.foreign_bundles(), clock);
  if (!opened.ok()) {
    return opened.status();
  }
  foreign = *std::move(opened);
  foreign->SetOnChange([this] {
    if (const absl::Status published = Publish(); !published.ok()) {
      spdlog::warn("bundles not published, to be tried again: {}", base::Message(published));
    }
  });
  return absl::OkStatus();
}

absl::Status Federation::Impl::OpenEndpoint() {
  if (!config.bundle_endpoint.has_value()) {
    return absl::OkStatus();
  }
  auto listening =
      BundleEndpoint::Listen(config.bundle_endpoint->host, config.bundle_endpoint->port);
  if (!listening.ok()) {
    return absl::UnavailableError(
        base::StrCat("--bundle-endpoint: ", base::Message(listening.status())));
  }
  endpoint = *std::move(listening);
  if (config.bundle_endpoint_cert.empty()) {
    return absl::OkStatus();
  }
  certificate_files.emplace(config.bundle_endpoint_cert, config.bundle_endpoint_key);
  if (absl::Status read = certificate_files->Reload(*endpoint); !read.ok()) {
    return absl::InvalidArgumentError(
        base::StrCat("--bundle-endpoint-cert, --bundle-endpoint-key: ", base::Message(read)));
  }
  return absl::OkStatus();
}

absl::Status Federation::Impl::Publish() {
  const std::lock_guard<std::mutex> lock(publish_mutex);
  publish_due.store(true);
  const std::shared_ptr<const x509::TrustBundleSet> own = ca.bundles();
  const x509::TrustBundle* const bundle = own->Find(config.trust_domain.name());
  if (bundle == nullptr) {
    return absl::InternalError("the CA has no bundle of its own trust domain");
  }
  mesh::BundleSet set;
  set.bundles.push_back(RootsOf(*bundle));  // first: who asks for "the" bundle takes this one
  for (ForeignStatus& held : foreign->Status()) {
    if (!held.root_der.empty() && !held.distrusted) {
      set.bundles.push_back({std::move(held.trust_domain), std::move(held.root_der)});
    }
  }
  const absl::StatusOr<store::Version> version =
      store.cas().VersionOfBundles(DigestOf(set.bundles));
  if (!version.ok()) {
    return version.status();
  }
  set.version = *version;
  if (endpoint != nullptr) {
    endpoint->SetDocument(
        x509::SpiffeBundleToJson(*bundle, SpiffeSequence(*version), config.bundle_refresh_hint));
  }
  mesh.SetBundles(std::move(set));
  publish_due.store(false);
  return absl::OkStatus();
}

void Federation::Impl::Run() {
  std::unique_lock<std::mutex> lock(mutex);
  while (!stopping.load()) {
    lock.unlock();
    foreign->RunDue();
    lock.lock();
    stop.wait_for(lock, kPeriod, [this] { return stopping.load(); });
  }
}

absl::StatusOr<std::unique_ptr<Federation>> Federation::Open(const IssuerConfig& config,
                                                             const ca::CaSigner& ca,
                                                             store::Store& store,
                                                             mesh::MeshState& mesh,
                                                             const base::Clock& clock) {
  auto impl = std::make_unique<Impl>(config, ca, store, mesh, clock);
  for (const auto step : {&Impl::OpenForeign, &Impl::OpenEndpoint, &Impl::Publish}) {
    if (absl::Status done = (*impl.*step)(); !done.ok()) {
      return done;
    }
  }
  return std::unique_ptr<Federation>(new Federation(std::move(impl)));
}

Federation::Federation(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Federation::~Federation() {
  Stop();
}

void Federation::Start() {
  if (!impl_->foreign->empty()) {
    impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
  }
}

void Federation::Stop() {
  {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->stopping.store(true);
  }
  impl_->stop.notify_all();
  if (impl_->thread.joinable()) {
    impl_->thread.join();
  }
}

absl::Status Federation::Publish() {
  return impl_->Publish();
}

absl::Status Federation::SetOwnSvid(const x509::Svid& svid) {
  if (impl_->endpoint == nullptr || impl_->certificate_files.has_value()) {
    return absl::OkStatus();
  }
  return impl_->endpoint->SetIdentity(svid.chain(), svid.key());
}

void Federation::Tick() {
  if (impl_->publish_due.load()) {
    if (const absl::Status published = impl_->Publish(); !published.ok()) {
      spdlog::warn("bundles not published, to be tried again: {}", base::Message(published));
    }
  }
  const absl::Duration now = impl_->clock.SinceBoot();
  if (!impl_->certificate_files.has_value() || now - impl_->reloaded_at < kReloadPeriod) {
    return;
  }
  impl_->reloaded_at = now;
  const absl::Status reloaded = impl_->certificate_files->Reload(*impl_->endpoint);
  const std::string error(base::Message(reloaded));
  if (!reloaded.ok() && error != impl_->reload_error) {
    spdlog::error("bundle endpoint: certificate not reloaded, the old one goes on: {}", error);
  }
  impl_->reload_error = error;
}

absl::Status Federation::Refresh(std::string_view trust_domain, bool accept_older) {
  return impl_->foreign->Refresh(trust_domain, accept_older);
}

std::vector<ForeignStatus> Federation::Foreign() const {
  return impl_->foreign->Status();
}

uint16_t Federation::endpoint_port() const {
  return impl_->endpoint == nullptr ? uint16_t{0} : impl_->endpoint->port();
}

uint64_t Federation::endpoint_served() const {
  return impl_->endpoint == nullptr ? 0 : impl_->endpoint->served();
}

}  // namespace postern::service
