// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/endpoint_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "common/base/strings.h"

namespace postern::identity {
namespace {

EndpointDirectory::Answer Downgrade(const AddressKey& key) {
  return absl::FailedPreconditionError(
      base::StrCat(key.ToString(), " was in the mesh once and is not now"));
}

}  // namespace

// One Lookup that waits. `done` belongs to the loop's thread; `loop` is nulled under the mutex when
// the query is destroyed, so that nothing is posted to a loop that has gone.
struct EndpointCache::Waiter {
  std::mutex mutex;
  net::Loop* loop = nullptr;  // guarded by mutex
  std::function<void(Answer)> done;

  static void Deliver(const std::shared_ptr<Waiter>& waiter,
                      const std::shared_ptr<const Answer>& answer) {
    const std::lock_guard lock(waiter->mutex);
    if (waiter->loop == nullptr) {
      return;
    }
    waiter->loop->Post([waiter, answer] {
      if (auto callback = std::exchange(waiter->done, nullptr)) {
        callback(*answer);
      }
    });
  }
};

struct EndpointCache::WaitingQuery final : public EndpointDirectory::Query {
  WaitingQuery(EndpointCache* owner, AddressKey asked, std::shared_ptr<Waiter> waits)
      : cache(owner), key(asked), waiter(std::move(waits)) {}

  ~WaitingQuery() override {
    {
      const std::lock_guard lock(waiter->mutex);
      waiter->loop = nullptr;
    }
    waiter->done = nullptr;
    Shard& shard = cache->ShardOf(key);
    const std::lock_guard lock(shard.mutex);
    if (const auto at = shard.entries.find(key); at != shard.entries.end()) {
      std::erase(at->second.waiters, waiter);
    }
  }

  EndpointCache* const cache;
  const AddressKey key;
  const std::shared_ptr<Waiter> waiter;
};

EndpointCache::EndpointCache(net::Loop& main, const base::Clock& clock, SeenList* seen)
    : main_(main),
      clock_(clock),
      seen_(seen),
      alive_(std::make_shared<const EndpointCache*>(this)) {}
EndpointCache::~EndpointCache() = default;

EndpointCache::Shard& EndpointCache::ShardOf(const AddressKey& key) const {
  // The map inside uses the low bits of the same hash.
  return shards_[(absl::Hash<AddressKey>()(key) >> 32U) % kShards];
}

void EndpointCache::CountEntry(const AddressKey& key, int by) const {
  entries_.fetch_add(static_cast<size_t>(by), std::memory_order_relaxed);
  if (key.port == 0) {
    member_watches_.fetch_add(static_cast<size_t>(by), std::memory_order_relaxed);
  }
}

std::shared_ptr<const config::DestinationSet> EndpointCache::static_destinations() const {
  const std::lock_guard lock(static_mutex_);
  return static_;
}

std::unique_ptr<EndpointDirectory::Query> EndpointCache::Lookup(
    net::Loop& loop, const net::SocketAddress& destination, std::function<void(Answer)> done) {
  if (destination.is_unix()) {
    done(Answer(std::nullopt));
    return nullptr;
  }
  const AddressKey key{destination.ip(), destination.port()};
  if (const auto fixed = static_destinations(); fixed != nullptr) {
    if (auto found = fixed->Find(key.ip, key.port); found.has_value()) {
      NoteSeen(key);
      done(Answer(std::move(found)));
      return nullptr;
    }
  }
  if (!has_upstream_.load(std::memory_order_acquire)) {
    done(WasSeen(key) ? Downgrade(key) : Answer(std::nullopt));
    return nullptr;
  }
  auto waiter = std::make_shared<Waiter>();
  waiter->loop = &loop;
  const Found found = FindOrWait(key, waiter);
  if (found.answer != nullptr) {
    done(*found.answer);
    return nullptr;
  }
  if (found.place == Place::kFull) {
    done(absl::UnavailableError("too many destinations are being looked up"));
    return nullptr;
  }
  waiter->done = std::move(done);  // before any answer can run: that needs this thread's loop
  return std::make_unique<WaitingQuery>(this, key, std::move(waiter));
}

// A destination that the file names, and a name that leads into the mesh, count as seen once they
// were asked for: taking them out of the file, or leading elsewhere, is no leave to go on in
// plaintext.
void EndpointCache::NoteSeen(const SeenKey& key) {
  if (seen_ == nullptr) {
    return;
  }
  const Mark mark = MarkSeen(key);
  // The list says once that it is full.
  if (mark == Mark::kKnown || (mark == Mark::kNoRoom && told_of_no_room_.exchange(true))) {
    return;
  }
  main_.Post([weak = std::weak_ptr(alive_), this, key] {
    if (!weak.expired()) {
      seen_->Add(key);
      MarkSeen(key);  // again: the list may have been reviewed meanwhile
    }
  });
}

EndpointCache::Mark EndpointCache::MarkSeen(const SeenKey& key) {
  const auto mark = [](auto& set, size_t most, const auto& which) {
    if (set.contains(which)) {
      return Mark::kKnown;
    }
    if (set.size() >= most) {
      return Mark::kNoRoom;
    }
    set.insert(which);
    return Mark::kNew;
  };
  if (const NameKey* const name = key.name()) {
    const std::lock_guard lock(names_mutex_);
    return mark(seen_names_, SeenList::kMostNames, *name);
  }
  const AddressKey& address = *key.address();
  Shard& shard = ShardOf(address);
  const std::lock_guard lock(shard.mutex);
  return mark(shard.seen, SeenList::kMost / kShards, address);
}

bool EndpointCache::WasSeen(const AddressKey& key) const {
  Shard& shard = ShardOf(key);
  const std::lock_guard lock(shard.mutex);
  return shard.seen.contains(key);
}

void EndpointCache::NoteName(std::string_view name, uint16_t port) {
  NoteSeen(NameKey{std::string(name), port});
}

bool EndpointCache::WasInMesh(std::string_view name, uint16_t port) const {
  const NameKey key{std::string(name), port};
  const std::lock_guard lock(names_mutex_);
  return seen_names_.contains(key);
}

EndpointCache::Found EndpointCache::FindOrWait(const AddressKey& key,
                                               const std::shared_ptr<Waiter>& waiter) {
  Found found;
  {
    Shard& shard = ShardOf(key);
    const std::lock_guard lock(shard.mutex);
    auto at = shard.entries.find(key);
    if (at == shard.entries.end()) {
      if (entries_.load(std::memory_order_relaxed) >= kMostEntries) {
        found.place = Place::kFull;
      } else {
        at = shard.entries.try_emplace(key).first;
        CountEntry(key, 1);
        found.place = Place::kNew;
      }
    }
    if (found.place != Place::kFull) {
      at->second.last_used = clock_.SinceBoot();
      found.answer = at->second.answer;
      if (found.answer == nullptr) {
        at->second.waiters.push_back(waiter);
      }
    }
  }
  if (found.answer == nullptr) {
    main_.Post([weak = std::weak_ptr(alive_), this, key, place = found.place] {
      if (!weak.expired()) {
        OnUnanswered(key, place);
      }
    });
  }
  return found;
}

void EndpointCache::OnUnanswered(const AddressKey& key, Place place) {
  if (place == Place::kFull) {
    Forget(absl::InfiniteDuration(), kMostEntries / 8);
    return;
  }
  if (place == Place::kNew && upstream_.subscribe) {
    upstream_.subscribe({key});
  }
  if (upstream_.hurry) {
    upstream_.hurry();
  }
}

// Names stand in the file alone; the issuer knows addresses.
std::optional<config::MeshDestination> EndpointCache::FindName(std::string_view name,
                                                               uint16_t port) const {
  const auto fixed = static_destinations();
  return fixed != nullptr ? fixed->FindName(name, port) : std::nullopt;
}

bool EndpointCache::IsMeshMember(const base::IpAddress& ip) const {
  {
    const std::lock_guard lock(members_mutex_);
    if (members_.contains(ip)) {
      return true;
    }
  }
  if (const auto fixed = static_destinations(); fixed != nullptr && fixed->Find(ip, 0)) {
    return true;
  }
  if (has_upstream_.load(std::memory_order_acquire)) {
    Watch(AddressKey{ip, 0});  // known from the next connection on
  }
  return false;
}

bool EndpointCache::AwaitsAnswer(const base::IpAddress& ip) const {
  const AddressKey key{ip, 0};
  Shard& shard = ShardOf(key);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(key);
  return at != shard.entries.end() && at->second.answer == nullptr;
}

bool EndpointCache::Watch(const AddressKey& key) const {
  {
    Shard& shard = ShardOf(key);
    const std::lock_guard lock(shard.mutex);
    if (const auto at = shard.entries.find(key); at != shard.entries.end()) {
      at->second.last_used = clock_.SinceBoot();
      return false;
    }
    if (entries_.load(std::memory_order_relaxed) >= kMostEntries ||
        member_watches_.load(std::memory_order_relaxed) >= kMostMemberWatches) {
      return false;
    }
    shard.entries[key].last_used = clock_.SinceBoot();
    CountEntry(key, 1);
  }
  return main_.Post([weak = std::weak_ptr(alive_), this, key] {
    if (!weak.expired() && upstream_.subscribe) {
      upstream_.subscribe({key});
    }
  });
}

void EndpointCache::SetStatic(std::shared_ptr<const config::DestinationSet> destinations) {
  const std::lock_guard lock(static_mutex_);
  static_ = std::move(destinations);
}

void EndpointCache::SetUpstream(Upstream upstream) {
  upstream_ = std::move(upstream);
  has_upstream_.store(upstream_.subscribe != nullptr, std::memory_order_release);
}

void EndpointCache::OnAnswer(const AddressKey& key, Answer answer, std::string wire) {
  Store(key, std::move(answer), std::move(wire), true);
}

void EndpointCache::Restore(const AddressKey& key, Answer answer, std::string wire) {
  if (size() < kMostEntries) {
    Store(key, std::move(answer), std::move(wire), false);
  }
}

EndpointDirectory::Answer EndpointCache::Judge(const AddressKey& key, Answer answer,
                                               bool names_identity) const {
  const bool plaintext = answer.ok() && !answer->has_value();
  if (plaintext && !names_identity && seen_ != nullptr && seen_->Contains(key)) {
    return Downgrade(key);
  }
  return answer;
}

void EndpointCache::Store(const AddressKey& key, Answer answer, std::string wire,
                          bool only_if_known) {
  const bool names_identity = answer.ok() && answer->has_value();
  if (names_identity && key.port != 0 && seen_ != nullptr) {
    seen_->Add(key);
  }
  const auto judged = std::make_shared<const Answer>(Judge(key, std::move(answer), names_identity));
  std::vector<std::shared_ptr<Waiter>> waiters;
  bool named_before = false;
  {
    Shard& shard = ShardOf(key);
    const std::lock_guard lock(shard.mutex);
    auto at = shard.entries.find(key);
    if (at == shard.entries.end()) {
      if (only_if_known) {
        return;
      }
      at = shard.entries.try_emplace(key).first;
      at->second.last_used = clock_.SinceBoot();
      CountEntry(key, 1);
    }
    Entry& entry = at->second;
    named_before = std::exchange(entry.names_identity, names_identity);
    entry.answer = judged;
    entry.wire = names_identity ? std::move(wire) : std::string();
    waiters = std::exchange(entry.waiters, {});
  }
  CountMember(key, named_before, names_identity);
  for (const auto& waiter : waiters) {
    Waiter::Deliver(waiter, judged);
  }
}

void EndpointCache::CountMember(const AddressKey& key, bool was, bool is) {
  if (was == is) {
    return;
  }
  const std::lock_guard lock(members_mutex_);
  int& count = members_[key.ip];
  count += is ? 1 : -1;
  if (count <= 0) {
    members_.erase(key.ip);
  }
}

std::vector<AddressKey> EndpointCache::Subscriptions() const {
  std::vector<AddressKey> keys;
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (const auto& [key, entry] : shard.entries) {
      keys.push_back(key);
    }
  }
  return keys;
}

std::vector<std::string> EndpointCache::Remembered() const {
  std::vector<std::string> answers;
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (const auto& [key, entry] : shard.entries) {
      if (entry.names_identity) {
        answers.push_back(entry.wire);
      }
    }
  }
  return answers;
}

void EndpointCache::ReviewSeen() {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    shard.seen.clear();
  }
  {
    const std::lock_guard lock(names_mutex_);
    seen_names_.clear();
  }
  told_of_no_room_.store(false);
  if (seen_ != nullptr) {
    for (const SeenKey& key : seen_->keys()) {
      MarkSeen(key);
    }
  }
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (auto& [key, entry] : shard.entries) {
      if (entry.answer == nullptr || entry.names_identity) {
        continue;
      }
      // "Not of the mesh" and "not any more" differ by the list alone.
      if (entry.answer->ok() || absl::IsFailedPrecondition(entry.answer->status())) {
        entry.answer = std::make_shared<const Answer>(Judge(key, Answer(std::nullopt), false));
      }
    }
  }
}

void EndpointCache::Sweep() {
  Forget(clock_.SinceBoot() - kForgetAfter, kMostEntries);
}

void EndpointCache::Forget(absl::Duration used_before, size_t at_most) {
  std::vector<std::pair<absl::Duration, AddressKey>> old;
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (const auto& [key, entry] : shard.entries) {
      if (entry.waiters.empty() && entry.last_used < used_before) {
        old.emplace_back(entry.last_used, key);
      }
    }
  }
  if (old.size() > at_most) {
    std::nth_element(old.begin(), old.begin() + static_cast<std::ptrdiff_t>(at_most), old.end());
    old.resize(at_most);
  }
  std::vector<AddressKey> forgotten;
  for (const auto& [last_used, key] : old) {
    bool named = false;
    {
      Shard& shard = ShardOf(key);
      const std::lock_guard lock(shard.mutex);
      const auto at = shard.entries.find(key);
      if (at == shard.entries.end() || at->second.last_used != last_used) {
        continue;  // asked for again meanwhile
      }
      named = at->second.names_identity;
      shard.entries.erase(at);
      CountEntry(key, -1);
    }
    CountMember(key, named, false);
    forgotten.push_back(key);
  }
  if (!forgotten.empty() && upstream_.unsubscribe) {
    upstream_.unsubscribe(forgotten);
  }
}

}  // namespace postern::identity
