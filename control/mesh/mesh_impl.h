// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "control/mesh/directory.h"
#include "control/mesh/mesh_state.h"

// What MeshState and Session share. Internal to control/mesh.
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
    std::optional<std::vector<uint16_t>> ports = {};  // that it serves; unset until its Hello
    Version sent_bundles = {};
    Version sent_policy = {};
    Version sent_revocations = {};
    Version acked_bundles = {};
    Version acked_policy = {};
    Version acked_endpoints = {};
    Version acked_revocations = {};
    std::string last_error = {};
    absl::flat_hash_set<Address> subscribed = {};
    absl::flat_hash_set<Address> pending = {};  // answers owed; part of `subscribed`
    bool wake_due = false;                      // woken, and has not taken since
  };

  // A proxy that has gone and is still counted as serving.
  struct Lingering {
    store::Speaker speaker;
    absl::Duration until;  // Clock::SinceBoot
  };

  Impl(store::Store& the_store, const base::Clock& the_clock)
      : store(the_store), clock(the_clock) {}

  std::vector<store::Speaker> SpeakersOf(const std::string& entry_id) const;
  size_t SessionsOf(const ProxyFacts& facts) const;  // of its entry, from its address
  std::vector<std::pair<Address, std::vector<Endpoint>>> SubscribedAnswers(
      const std::vector<base::IpAddress>& ips) const;
  void Republish(const std::string& entry_id, uint64_t except, Wakes& wakes);
  void Owe(const Address& asked, uint64_t except, Wakes& wakes);
  static void Mark(Proxy& proxy, Wakes& wakes);
  void MarkProxiesOf(const std::string& entry_id, Wakes& wakes);
  static void CallAll(const Wakes& wakes) {  // with none of the locks here held
    for (const std::shared_ptr<Waker>& waker : wakes) {
      waker->Call();
    }
  }
  void Unsubscribe(uint64_t id, Proxy& proxy, const Address& address);
  void Linger(store::Speaker speaker);
  void DropLingering(const std::string& entry_id, const base::IpAddress& source);

  // All speakers, connected or lingering, by (entry, source).
  using SpeakerMap = std::map<std::pair<std::string, base::IpAddress>, std::vector<uint16_t>>;
  SpeakerMap AllSpeakers() const;

  store::Store& store;
  const base::Clock& clock;
  std::mutex reload_mutex;  // taken before `mutex`: a slow reload never overtakes a newer one

  std::mutex maintain_mutex;  // taken before `mutex`; guards the next
  SpeakerMap stored_speakers;

  mutable std::mutex mutex;  // guards all below
  std::shared_ptr<const BundleSet> bundles = std::make_shared<const BundleSet>();
  std::shared_ptr<const PolicyDocuments> policy = std::make_shared<const PolicyDocuments>();
  std::shared_ptr<const SignedRevocations> revocations;  // null: none were set yet
  std::condition_variable followed;  // a proxy has acknowledged revocations, or gone
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
  bool speakers_changed = false;  // since Maintain looked
};

}  // namespace postern::mesh
