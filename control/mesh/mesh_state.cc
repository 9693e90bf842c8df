// SPDX-License-Identifier: Apache-2.0
#include "control/mesh/mesh_state.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "control/mesh/directory.h"

namespace postern::mesh {

// Calls a session's `wake`, and lets ~Session wait until it does not run and never will again.
struct Session::Waker {
  std::mutex mutex;
  std::function<void()> wake;  // guarded by mutex; null once the session ends

  void Call() {
    const std::lock_guard lock(mutex);
    if (wake) {
      wake();
    }
  }
  void Stop() {
    const std::lock_guard lock(mutex);
    wake = nullptr;
  }
};

struct MeshState::Impl {
  using Waker = Session::Waker;
  using Wakes = std::vector<std::shared_ptr<Waker>>;

  struct Proxy {
    ProxyFacts facts;
    std::shared_ptr<Waker> waker;
    absl::Time connected_at;
    std::optional<std::vector<Serving>> serving;  // unset until its Hello
    Version sent_bundles = {};
    Version sent_policy = {};
    Version acked_bundles = {};
    Version acked_policy = {};
    Version acked_endpoints = {};
    std::string last_error = {};
    absl::flat_hash_set<Address> subscribed = {};
    absl::flat_hash_set<Address> pending = {};  // answers owed; part of `subscribed`
    bool wake_due = false;                      // woken, and has not taken since
  };

  // A proxy that has gone and is still counted as serving.
  struct Lingering {
    Speaker speaker;
    absl::Duration until;  // Clock::SinceBoot
  };

  Impl(store::Store& the_store, const base::Clock& the_clock)
      : store(the_store), clock(the_clock) {}

  std::vector<Speaker> SpeakersOf(const std::string& entry_id) const;
  std::vector<std::pair<Address, std::vector<Endpoint>>> SubscribedAnswers(
      const std::vector<base::IpAddress>& ips) const;
  void Republish(const std::string& entry_id, uint64_t except, Wakes& wakes);
  void Owe(const Address& asked, uint64_t except, Wakes& wakes);
  static void Mark(Proxy& proxy, Wakes& wakes);
  void Unsubscribe(uint64_t id, Proxy& proxy, const Address& address);
  void DropLingering(const std::string& entry_id, const base::IpAddress& source);

  store::Store& store;
  const base::Clock& clock;
  std::mutex reload_mutex;  // taken before `mutex`: a slow reload never overtakes a newer one

  mutable std::mutex mutex;  // guards all below
  std::shared_ptr<const BundleSet> bundles = std::make_shared<const BundleSet>();
  std::shared_ptr<const PolicyDocuments> policy = std::make_shared<const PolicyDocuments>();
  absl::flat_hash_map<std::string, store::Entry> entries;
  Directory directory;
  Version endpoints_version;
  absl::flat_hash_map<uint64_t, Proxy> proxies;
  absl::flat_hash_map<std::string, std::vector<uint64_t>> proxies_of_entry;
  absl::flat_hash_map<std::string, std::vector<Lingering>> lingering;  // by entry
  absl::flat_hash_map<base::IpAddress, std::map<uint16_t, absl::flat_hash_set<uint64_t>>>
      subscribers;
  size_t subscription_count = 0;
  uint64_t next_id = 1;
};

namespace {

template <typename Wakes>
void CallAll(const Wakes& wakes) {
  for (const auto& waker : wakes) {
    waker->Call();
  }
}

}  // namespace

std::vector<Speaker> MeshState::Impl::SpeakersOf(const std::string& entry_id) const {
  std::vector<Speaker> speakers;
  if (const auto connected = proxies_of_entry.find(entry_id); connected != proxies_of_entry.end()) {
    for (uint64_t id : connected->second) {
      const Proxy& proxy = proxies.at(id);
      if (proxy.serving.has_value()) {
        speakers.push_back({proxy.facts.source, *proxy.serving});
      }
    }
  }
  if (const auto gone = lingering.find(entry_id); gone != lingering.end()) {
    for (const Lingering& one : gone->second) {
      speakers.push_back(one.speaker);
    }
  }
  return speakers;
}

std::vector<std::pair<Address, std::vector<Endpoint>>> MeshState::Impl::SubscribedAnswers(
    const std::vector<base::IpAddress>& ips) const {
  std::vector<std::pair<Address, std::vector<Endpoint>>> answers;
  for (const base::IpAddress& ip : ips) {
    const auto ports = subscribers.find(ip);
    if (ports != subscribers.end()) {
      for (const auto& [port, ids] : ports->second) {
        const Address asked{ip, port};
        answers.emplace_back(asked, directory.Lookup(asked));
      }
    }
  }
  return answers;
}

// Brings the directory in line with an entry and those that speak for it, and owes an answer to
// each subscriber whose answer changed by that.
void MeshState::Impl::Republish(const std::string& entry_id, uint64_t except, Wakes& wakes) {
  const auto entry = entries.find(entry_id);
  std::vector<Address> addresses;
  std::string spiffe_id;
  if (entry != entries.end()) {
    addresses = AddressesOf(entry->second, SpeakersOf(entry_id));
    spiffe_id = entry->second.spiffe_id.uri();
  }
  const std::vector<base::IpAddress> affected = directory.Affected(entry_id, addresses);
  if (affected.empty()) {
    return;
  }
  const auto before = SubscribedAnswers(affected);
  directory.Publish(entry_id, spiffe_id, std::move(addresses));
  ++endpoints_version.sequence;
  for (const auto& [asked, endpoints] : before) {
    if (directory.Lookup(asked) != endpoints) {
      Owe(asked, except, wakes);
    }
  }
}

void MeshState::Impl::Owe(const Address& asked, uint64_t except, Wakes& wakes) {
  for (uint64_t id : subscribers.at(asked.ip).at(asked.port)) {
    Proxy& proxy = proxies.at(id);
    proxy.pending.insert(asked);
    if (id != except) {
      Mark(proxy, wakes);
    }
  }
}

void MeshState::Impl::Mark(Proxy& proxy, Wakes& wakes) {
  if (!proxy.wake_due) {
    proxy.wake_due = true;
    wakes.push_back(proxy.waker);
  }
}

void MeshState::Impl::Unsubscribe(uint64_t id, Proxy& proxy, const Address& address) {
  if (proxy.subscribed.erase(address) == 0) {
    return;
  }
  proxy.pending.erase(address);
  --subscription_count;
  const auto ip = subscribers.find(address.ip);
  const auto port = ip->second.find(address.port);
  port->second.erase(id);
  if (port->second.empty()) {
    ip->second.erase(port);
  }
  if (ip->second.empty()) {
    subscribers.erase(ip);
  }
}

void MeshState::Impl::DropLingering(const std::string& entry_id, const base::IpAddress& source) {
  const auto gone = lingering.find(entry_id);
  if (gone == lingering.end()) {
    return;
  }
  std::erase_if(gone->second,
                [&source](const Lingering& one) { return one.speaker.source == source; });
  if (gone->second.empty()) {
    lingering.erase(gone);
  }
}

Session::Session(std::shared_ptr<MeshState> state, uint64_t id, std::shared_ptr<Waker> waker)
    : state_(std::move(state)), id_(id), waker_(std::move(waker)) {}

Session::~Session() {
  waker_->Stop();
  MeshState::Impl& impl = *state_->impl_;
  MeshState::Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl.mutex);
    MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
    const absl::flat_hash_set<Address> subscribed = proxy.subscribed;
    for (const Address& address : subscribed) {
      impl.Unsubscribe(id_, proxy, address);
    }
    const std::string entry_id = proxy.facts.entry_id;
    if (proxy.serving.has_value()) {
      impl.DropLingering(entry_id, proxy.facts.source);
      impl.lingering[entry_id].push_back(
          {{proxy.facts.source, *std::move(proxy.serving)}, impl.clock.SinceBoot() + kLinger});
    }
    std::vector<uint64_t>& of_entry = impl.proxies_of_entry[entry_id];
    std::erase(of_entry, id_);
    if (of_entry.empty()) {
      impl.proxies_of_entry.erase(entry_id);
    }
    impl.proxies.erase(id_);
    impl.Republish(entry_id, id_, wakes);
  }
  CallAll(wakes);
}

void Session::SetHeld(Kind kind, Version version) {
  MeshState::Impl& impl = *state_->impl_;
  const std::lock_guard lock(impl.mutex);
  MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
  switch (kind) {
    case Kind::kBundles:
      proxy.sent_bundles = version;
      break;
    case Kind::kPolicy:
      proxy.sent_policy = version;
      break;
    case Kind::kEndpoints:
      break;  // answered afresh
  }
}

absl::Status Session::SetServing(std::span<const Serving> serving) {
  if (serving.size() > kMaxServing) {
    return absl::InvalidArgumentError(
        base::StrCat("more than ", kMaxServing, " ports are said to be served"));
  }
  MeshState::Impl& impl = *state_->impl_;
  MeshState::Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl.mutex);
    MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
    proxy.serving.emplace(serving.begin(), serving.end());
    impl.DropLingering(proxy.facts.entry_id, proxy.facts.source);
    impl.Republish(proxy.facts.entry_id, id_, wakes);
  }
  CallAll(wakes);
  return absl::OkStatus();
}

absl::Status Session::Subscribe(std::span<const Address> addresses) {
  MeshState::Impl& impl = *state_->impl_;
  const std::lock_guard lock(impl.mutex);
  MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
  absl::flat_hash_set<Address> fresh;
  for (const Address& address : addresses) {
    if (!proxy.subscribed.contains(address)) {
      fresh.insert(address);
    }
  }
  if (proxy.subscribed.size() + fresh.size() > kMaxSubscriptions) {
    return absl::ResourceExhaustedError(
        base::StrCat("more than ", kMaxSubscriptions, " addresses are subscribed"));
  }
  for (const Address& address : fresh) {
    proxy.subscribed.insert(address);
    impl.subscribers[address.ip][address.port].insert(id_);
    ++impl.subscription_count;
  }
  proxy.pending.insert(addresses.begin(), addresses.end());
  return absl::OkStatus();
}

void Session::Unsubscribe(std::span<const Address> addresses) {
  MeshState::Impl& impl = *state_->impl_;
  const std::lock_guard lock(impl.mutex);
  MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
  for (const Address& address : addresses) {
    impl.Unsubscribe(id_, proxy, address);
  }
}

void Session::Acknowledge(Kind kind, Version version, std::string_view error) {
  MeshState::Impl& impl = *state_->impl_;
  const std::lock_guard lock(impl.mutex);
  MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
  proxy.last_error = base::Printable(error);
  if (!error.empty()) {
    return;
  }
  switch (kind) {
    case Kind::kBundles:
      proxy.acked_bundles = version;
      break;
    case Kind::kPolicy:
      proxy.acked_policy = version;
      break;
    case Kind::kEndpoints:
      proxy.acked_endpoints = version;
      break;
  }
}

Updates Session::Take() {
  MeshState::Impl& impl = *state_->impl_;
  const std::lock_guard lock(impl.mutex);
  MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
  proxy.wake_due = false;
  Updates updates;
  if (impl.bundles->version != proxy.sent_bundles) {
    proxy.sent_bundles = impl.bundles->version;
    updates.bundles = impl.bundles;
  }
  if (impl.policy->version != proxy.sent_policy) {
    proxy.sent_policy = impl.policy->version;
    updates.policy = impl.policy;
  }
  if (!proxy.pending.empty()) {
    EndpointUpdate& update = updates.endpoints.emplace();
    update.version = impl.endpoints_version;
    while (!proxy.pending.empty() && update.answers.size() < kMaxAnswersPerUpdate) {
      const Address asked = *proxy.pending.begin();
      proxy.pending.erase(proxy.pending.begin());
      update.answers.push_back({asked, impl.directory.Lookup(asked)});
    }
  }
  return updates;
}

MeshState::MeshState(store::Store& store, const base::Clock& clock)
    : impl_(std::make_unique<Impl>(store, clock)) {
  // Endpoints live in memory only, so their versions are of this run.
  impl_->endpoints_version = {
      static_cast<uint64_t>(std::max<int64_t>(1, absl::ToUnixMillis(clock.Now()))), 1};
}

MeshState::~MeshState() = default;

absl::StatusOr<std::shared_ptr<MeshState>> MeshState::Create(store::Store& store,
                                                             const base::Clock& clock) {
  auto state = std::shared_ptr<MeshState>(new MeshState(store, clock));
  absl::Status status = state->ReloadPolicy();
  if (status.ok()) {
    status = state->ReloadEntries();
  }
  if (!status.ok()) {
    return status;
  }
  return state;
}

void MeshState::SetBundles(BundleSet bundles) {
  Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->bundles = std::make_shared<const BundleSet>(std::move(bundles));
    for (auto& [id, proxy] : impl_->proxies) {
      Impl::Mark(proxy, wakes);
    }
  }
  CallAll(wakes);
}

absl::Status MeshState::ReloadPolicy() {
  const std::lock_guard reload(impl_->reload_mutex);
  absl::StatusOr<PolicyDocuments> read = impl_->store.policy().GetPolicy();
  if (!read.ok()) {
    return read.status();
  }
  Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->policy = std::make_shared<const PolicyDocuments>(*std::move(read));
    for (auto& [id, proxy] : impl_->proxies) {
      Impl::Mark(proxy, wakes);
    }
  }
  CallAll(wakes);
  return absl::OkStatus();
}

absl::Status MeshState::ReloadEntries() {
  const std::lock_guard reload(impl_->reload_mutex);
  absl::StatusOr<std::vector<store::Entry>> read = impl_->store.entries().ListEntries();
  if (!read.ok()) {
    return read.status();
  }
  Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl_->mutex);
    absl::flat_hash_map<std::string, store::Entry> fresh;
    for (store::Entry& entry : *read) {
      std::string id = entry.id;
      fresh.emplace(std::move(id), std::move(entry));
    }
    impl_->entries.swap(fresh);  // `fresh` holds the old ones from here on
    for (const auto& [id, entry] : fresh) {
      if (!impl_->entries.contains(id)) {
        impl_->lingering.erase(id);
        impl_->Republish(id, 0, wakes);
      }
    }
    for (const auto& [id, entry] : impl_->entries) {
      const auto old = fresh.find(id);
      if (old == fresh.end() || old->second != entry) {
        impl_->Republish(id, 0, wakes);
      }
    }
  }
  CallAll(wakes);
  return absl::OkStatus();
}

void MeshState::Maintain() {
  Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl_->mutex);
    const absl::Duration now = impl_->clock.SinceBoot();
    std::vector<std::string> changed;
    for (auto& [entry_id, gone] : impl_->lingering) {
      if (std::erase_if(gone, [now](const Impl::Lingering& one) { return one.until <= now; }) > 0) {
        changed.push_back(entry_id);
      }
    }
    for (const std::string& entry_id : changed) {
      if (impl_->lingering[entry_id].empty()) {
        impl_->lingering.erase(entry_id);
      }
      impl_->Republish(entry_id, 0, wakes);
    }
  }
  CallAll(wakes);
}

absl::StatusOr<std::unique_ptr<Session>> MeshState::Connect(const ProxyFacts& facts,
                                                            std::function<void()> wake) {
  auto waker = std::make_shared<Session::Waker>();
  waker->wake = std::move(wake);
  const std::lock_guard lock(impl_->mutex);
  const auto entry = impl_->entries.find(facts.entry_id);
  if (entry == impl_->entries.end() || entry->second.spiffe_id != facts.id) {
    return absl::NotFoundError("the entry of this proxy's certificate does not exist any more");
  }
  const uint64_t id = impl_->next_id++;
  Impl::Proxy proxy{
      .facts = facts, .waker = waker, .connected_at = impl_->clock.Now(), .serving = std::nullopt};
  impl_->proxies.emplace(id, std::move(proxy));
  impl_->proxies_of_entry[facts.entry_id].push_back(id);
  return std::unique_ptr<Session>(new Session(shared_from_this(), id, std::move(waker)));
}

std::shared_ptr<const BundleSet> MeshState::bundles() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->bundles;
}

std::shared_ptr<const PolicyDocuments> MeshState::policy() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->policy;
}

Answer MeshState::Lookup(const Address& asked) const {
  const std::lock_guard lock(impl_->mutex);
  return {asked, impl_->directory.Lookup(asked)};
}

std::vector<ProxyStatus> MeshState::Proxies() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<ProxyStatus> proxies;
  for (const auto& [id, proxy] : impl_->proxies) {
    proxies.push_back({.spiffe_id = proxy.facts.id.uri(),
                       .entry_id = proxy.facts.entry_id,
                       .source = proxy.facts.source,
                       .acked_bundles = proxy.acked_bundles,
                       .acked_policy = proxy.acked_policy,
                       .acked_endpoints = proxy.acked_endpoints,
                       .last_error = proxy.last_error,
                       .connected_at = proxy.connected_at});
  }
  return proxies;
}

size_t MeshState::connected() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->proxies.size();
}

size_t MeshState::subscriptions() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->subscription_count;
}

}  // namespace postern::mesh
