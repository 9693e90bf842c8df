// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "control/mesh/mesh_impl.h"

namespace postern::mesh {

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
    if (proxy.ports.has_value() && impl.entries.contains(entry_id)) {
      impl.Linger({entry_id, proxy.facts.source, *std::move(proxy.ports)});
    }
    std::vector<uint64_t>& of_entry = impl.proxies_of_entry[entry_id];
    std::erase(of_entry, id_);
    if (of_entry.empty()) {
      impl.proxies_of_entry.erase(entry_id);
    }
    impl.proxies.erase(id_);
    impl.Republish(entry_id, id_, wakes);
  }
  impl.followed.notify_all();
  MeshState::Impl::CallAll(wakes);
}

void Session::SetHeld(Kind kind, Version version) {
  MeshState::Impl& impl = *state_->impl_;
  const std::lock_guard lock(impl.mutex);
  MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
  switch (kind) {
    case Kind::kBundles:
      proxy.sent_bundles = version;
      proxy.acked_bundles = version;
      break;
    case Kind::kPolicy:
      proxy.sent_policy = version;
      proxy.acked_policy = version;
      break;
    case Kind::kRevocations:
      proxy.sent_revocations = version;
      proxy.acked_revocations = version;
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
  std::vector<uint16_t> ports;
  for (const Serving& served : serving) {
    ports.push_back(served.port);
  }
  std::sort(ports.begin(), ports.end());
  ports.erase(std::unique(ports.begin(), ports.end()), ports.end());
  MeshState::Impl& impl = *state_->impl_;
  MeshState::Impl::Wakes wakes;
  {
    const std::lock_guard lock(impl.mutex);
    MeshState::Impl::Proxy& proxy = impl.proxies.at(id_);
    proxy.ports = std::move(ports);
    impl.speakers_changed = true;
    impl.DropLingering(proxy.facts.entry_id, proxy.facts.source);
    impl.Republish(proxy.facts.entry_id, id_, wakes);
  }
  MeshState::Impl::CallAll(wakes);
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
    case Kind::kRevocations:
      proxy.acked_revocations = version;
      impl.followed.notify_all();
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
  if (impl.revocations != nullptr && impl.revocations->version != proxy.sent_revocations) {
    proxy.sent_revocations = impl.revocations->version;
    updates.revocations = impl.revocations;
  }
  updates.entry_gone = !impl.entries.contains(proxy.facts.entry_id);
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

}  // namespace postern::mesh
