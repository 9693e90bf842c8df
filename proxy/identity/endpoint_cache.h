// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "proxy/identity/address_key.h"
#include "proxy/identity/endpoint_directory.h"
#include "proxy/identity/seen_list.h"

namespace postern::identity {

// The EndpointDirectory of this module: the static destinations first, then what the issuer
// answered to subscriptions, which are made on demand and dropped when nobody asked for a while.
// Without an upstream (identity from files) only the static destinations are of the mesh.
//
// Threads: Lookup and what is asked of names and members from any loop; everything else on the main
// loop. The map is sharded, a shard's mutex is held for one find or insert, and never while calling
// back.
class EndpointCache final : public EndpointDirectory {
 public:
  static constexpr size_t kMostEntries = 12000;       // below the issuer's limit for one stream
  static constexpr size_t kMostMemberWatches = 3000;  // of these, for clients' addresses
  static constexpr absl::Duration kForgetAfter = absl::Minutes(15);

  // What is wanted from the issuer. Called on the main loop.
  struct Upstream {
    std::function<void(const std::vector<AddressKey>&)> subscribe;
    std::function<void(const std::vector<AddressKey>&)> unsubscribe;
    // A connection waits for the answer to one of those.
    std::function<void()> hurry;
  };

  // All outlive this. `seen` may be null: nothing is remembered.
  EndpointCache(net::Loop& main, const base::Clock& clock, SeenList* seen);
  ~EndpointCache() override;

  std::unique_ptr<Query> Lookup(net::Loop& loop, const net::SocketAddress& destination,
                                std::function<void(Answer)> done) override;
  std::optional<config::MeshDestination> FindName(std::string_view name,
                                                  uint16_t port) const override;
  void NoteName(std::string_view name, uint16_t port) override;
  bool WasInMesh(std::string_view name, uint16_t port) const override;
  bool IsMeshMember(const base::IpAddress& ip) const override;
  bool AwaitsAnswer(const base::IpAddress& ip) const override;

  // Main loop from here on.
  void SetStatic(std::shared_ptr<const config::DestinationSet> destinations);
  void SetUpstream(Upstream upstream);

  // The issuer's answer, converted, and as it came (for Remembered). Unknown keys are ignored: they
  // were forgotten meanwhile.
  void OnAnswer(const AddressKey& key, Answer answer, std::string wire);
  // Puts back what a former process knew; it counts until the issuer answers anew.
  void Restore(const AddressKey& key, Answer answer, std::string wire);

  // Everything that a new stream has to subscribe to.
  std::vector<AddressKey> Subscriptions() const;
  // The answers that name an identity, as they came.
  std::vector<std::string> Remembered() const;

  // Judges every answer again by the seen list, after it was loaded or changed.
  void ReviewSeen();
  // Forgets what nobody asked for since kForgetAfter. Call about once a minute.
  void Sweep();
  size_t size() const { return entries_.load(std::memory_order_relaxed); }

 private:
  struct Waiter;
  struct WaitingQuery;
  struct Entry {
    std::shared_ptr<const Answer> answer;  // null: asked, not answered yet
    bool names_identity = false;           // the issuer's answer named one
    std::string wire;                      // that answer, as it came
    absl::Duration last_used;              // SinceBoot
    std::vector<std::shared_ptr<Waiter>> waiters;
  };
  struct Shard {
    std::mutex mutex;
    absl::flat_hash_map<AddressKey, Entry> entries;  // guarded by mutex
    absl::flat_hash_set<AddressKey> seen;            // of the seen list; guarded by mutex
  };
  static constexpr size_t kShards = 16;

  enum class Place : uint8_t { kKnown, kNew, kFull };
  struct Found {
    std::shared_ptr<const Answer> answer;
    Place place = Place::kKnown;
  };

  Shard& ShardOf(const AddressKey& key) const;
  void CountEntry(const AddressKey& key, int by) const;
  Found FindOrWait(const AddressKey& key, const std::shared_ptr<Waiter>& waiter);
  void OnUnanswered(const AddressKey& key, Place place);
  bool Watch(const AddressKey& key) const;
  void NoteSeen(const SeenKey& key);
  enum class Mark : uint8_t { kNew, kKnown, kNoRoom };
  Mark MarkSeen(const SeenKey& key);
  bool WasSeen(const AddressKey& key) const;
  void Store(const AddressKey& key, Answer answer, std::string wire, bool only_if_known);
  Answer Judge(const AddressKey& key, Answer answer, bool names_identity) const;
  void CountMember(const AddressKey& key, bool was, bool is);
  void Forget(absl::Duration used_before, size_t at_most);
  std::shared_ptr<const config::DestinationSet> static_destinations() const;

  net::Loop& main_;
  const base::Clock& clock_;
  SeenList* const seen_;
  mutable std::array<Shard, kShards> shards_;
  mutable std::atomic<size_t> entries_{0};
  mutable std::atomic<size_t> member_watches_{0};
  std::atomic<bool> has_upstream_{false};
  Upstream upstream_;  // main loop

  mutable std::mutex static_mutex_;
  std::shared_ptr<const config::DestinationSet> static_;  // guarded by static_mutex_
  mutable std::mutex names_mutex_;
  absl::flat_hash_set<NameKey> seen_names_;  // of the seen list; guarded by names_mutex_
  // The list has heard, since its last review, of something for which there was no room here.
  std::atomic<bool> told_of_no_room_{false};
  mutable std::mutex members_mutex_;
  absl::flat_hash_map<base::IpAddress, int> members_;  // guarded by members_mutex_

  // Tasks posted to the main loop must not find this object gone.
  std::shared_ptr<const EndpointCache*> alive_;
};

}  // namespace postern::identity
