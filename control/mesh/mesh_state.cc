// SPDX-License-Identifier: Apache-2.0
#include "control/mesh/mesh_state.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/strings.h"
#include "control/mesh/mesh_impl.h"

namespace postern::mesh {

std::vector<store::Speaker> MeshState::Impl::SpeakersOf(const std::string& entry_id) const {
  std::vector<store::Speaker> speakers;
  if (const auto connected = proxies_of_entry.find(entry_id); connected != proxies_of_entry.end()) {
    for (uint64_t id : connected->second) {
      const Proxy& proxy = proxies.at(id);
      if (proxy.ports.has_value()) {
        speakers.push_back({entry_id, proxy.facts.source, *proxy.ports});
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

size_t MeshState::Impl::SessionsOf(const ProxyFacts& facts) const {
  const auto connected = proxies_of_entry.find(facts.entry_id);
  if (connected == proxies_of_entry.end()) {
    return 0;
  }
  return static_cast<size_t>(std::count_if(
      connected->second.begin(), connected->second.end(),
      [this, &facts](uint64_t id) { return proxies.at(id).facts.source == facts.source; }));
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
  Directory::Published published;
  if (entry != entries.end()) {
    published = {entry->second.spiffe_id.uri(), AddressesOf(entry->second, SpeakersOf(entry_id)),
                 entry->second.services};
  }
  const std::vector<base::IpAddress> affected = directory.Affected(entry_id, published);
  if (affected.empty()) {
    return;
  }
  const auto before = SubscribedAnswers(affected);
  directory.Publish(entry_id, published);
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

void MeshState::Impl::MarkProxiesOf(const std::string& entry_id, Wakes& wakes) {
  if (const auto connected = proxies_of_entry.find(entry_id); connected != proxies_of_entry.end()) {
    for (uint64_t id : connected->second) {
      Mark(proxies.at(id), wakes);
    }
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

void MeshState::Impl::Linger(store::Speaker speaker) {
  DropLingering(speaker.entry_id, speaker.source);
  std::vector<Lingering>& gone = lingering[speaker.entry_id];
  gone.push_back({std::move(speaker), clock.SinceBoot() + kLinger});
}

MeshState::Impl::SpeakerMap MeshState::Impl::AllSpeakers() const {
  SpeakerMap speakers;
  for (const auto& [entry_id, gone] : lingering) {
    for (const Lingering& one : gone) {
      speakers[{entry_id, one.speaker.source}] = one.speaker.ports;
    }
  }
  for (const auto& [id, proxy] : proxies) {
    if (proxy.ports.has_value() && entries.contains(proxy.facts.entry_id)) {
      speakers[{proxy.facts.entry_id, proxy.facts.source}] = *proxy.ports;
    }
  }
  return speakers;
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
  if (status.ok()) {
    status = state->LoadSpeakers();
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
  Impl::CallAll(wakes);
}

void MeshState::SetRevocations(SignedRevocations revocations) {
  Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->revocations = std::make_shared<const SignedRevocations>(std::move(revocations));
    for (auto& [id, proxy] : impl_->proxies) {
      Impl::Mark(proxy, wakes);
    }
  }
  Impl::CallAll(wakes);
}

MeshState::Followed MeshState::AwaitRevocations(Version version, absl::Duration patience) const {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(patience);
  Followed followed;
  const auto all = [this, &version, &followed] {
    followed = {impl_->proxies.size(), 0};
    for (const auto& [id, proxy] : impl_->proxies) {
      followed.acknowledged += proxy.acked_revocations >= version ? 1 : 0;
    }
    return followed.acknowledged == followed.connected;
  };
  std::unique_lock lock(impl_->mutex);
  impl_->followed.wait_until(lock, until, all);
  return followed;
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
  Impl::CallAll(wakes);
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
        impl_->speakers_changed = true;
        impl_->MarkProxiesOf(id, wakes);
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
  Impl::CallAll(wakes);
  return absl::OkStatus();
}

absl::Status MeshState::ReloadEntry(const std::string& id) {
  const std::lock_guard reload(impl_->reload_mutex);
  absl::StatusOr<store::Entry> read = impl_->store.entries().GetEntry(id);
  if (!read.ok() && !absl::IsNotFound(read.status())) {
    return read.status();
  }
  Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl_->mutex);
    if (read.ok()) {
      impl_->entries.insert_or_assign(id, *std::move(read));
    } else if (impl_->entries.erase(id) > 0) {
      impl_->lingering.erase(id);
      impl_->speakers_changed = true;
      impl_->MarkProxiesOf(id, wakes);
    }
    impl_->Republish(id, 0, wakes);
  }
  Impl::CallAll(wakes);
  return absl::OkStatus();
}

absl::Status MeshState::LoadSpeakers() {
  absl::StatusOr<std::vector<store::Speaker>> read = impl_->store.speakers().ListSpeakers();
  if (!read.ok()) {
    return read.status();
  }
  const std::lock_guard maintain(impl_->maintain_mutex);
  const std::lock_guard lock(impl_->mutex);
  Impl::Wakes nobody;  // there is no session yet
  for (store::Speaker& speaker : *read) {
    impl_->stored_speakers[{speaker.entry_id, speaker.source}] = speaker.ports;
    const std::string entry_id = speaker.entry_id;
    impl_->Linger(std::move(speaker));
    impl_->Republish(entry_id, 0, nobody);
  }
  return absl::OkStatus();
}

void MeshState::ExpireLingering() {
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
      impl_->speakers_changed = true;
      impl_->Republish(entry_id, 0, wakes);
    }
  }
  Impl::CallAll(wakes);
}

absl::Status MeshState::Maintain() {
  ExpireLingering();
  const std::lock_guard maintain(impl_->maintain_mutex);
  Impl::SpeakerMap now;
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->speakers_changed) {
      return absl::OkStatus();
    }
    impl_->speakers_changed = false;
    now = impl_->AllSpeakers();
  }
  std::vector<store::Speaker> present;
  std::vector<store::Speaker> gone;
  for (const auto& [key, ports] : now) {
    const auto stored = impl_->stored_speakers.find(key);
    if (stored == impl_->stored_speakers.end() || stored->second != ports) {
      present.push_back({key.first, key.second, ports});
    }
  }
  for (const auto& [key, ports] : impl_->stored_speakers) {
    if (!now.contains(key)) {
      gone.push_back({key.first, key.second, ports});
    }
  }
  if (present.empty() && gone.empty()) {
    return absl::OkStatus();
  }
  absl::Status status = impl_->store.speakers().UpdateSpeakers(present, gone);
  if (status.ok()) {
    impl_->stored_speakers = std::move(now);
  } else {
    const std::lock_guard lock(impl_->mutex);
    impl_->speakers_changed = true;  // the next call tries again
  }
  return status;
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
  if (impl_->SessionsOf(facts) >= kMaxSessionsFromOneSource) {
    return absl::ResourceExhaustedError(base::StrCat("this identity has ",
                                                     kMaxSessionsFromOneSource, " streams from ",
                                                     facts.source.ToString(), " already"));
  }
  const uint64_t id = impl_->next_id++;
  Impl::Proxy proxy{.facts = facts, .waker = waker, .connected_at = impl_->clock.Now()};
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

std::shared_ptr<const SignedRevocations> MeshState::revocations() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->revocations;
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
                       .acked_revocations = proxy.acked_revocations,
                       .last_error = proxy.last_error,
                       .connected_at = proxy.connected_at,
                       .serial = proxy.facts.serial});
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
