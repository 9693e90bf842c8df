// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/name_cache.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/host_name.h"
#include "common/base/strings.h"

namespace postern::net {

using std::chrono::milliseconds;

struct NameCache::Query::Entry {
  enum class Asking : uint8_t { kNo, kYes };

  std::string name;
  Addresses addresses;    // of the last good answer; empty: none, or the name does not exist
  absl::Status failure;   // of the last answer, if it was none
  milliseconds due{0};    // on the loop's clock: not asked again before
  milliseconds used{0};   // when somebody wanted it last
  uint32_t failures = 0;  // one after the other
  Asking asking = Asking::kNo;
  std::list<Query*> waiting;
  std::optional<Timer> patience;
};

NameCache::Query::~Query() {
  if (entry_ != nullptr) {
    entry_->waiting.remove(this);
  }
}

NameCache::NameCache(Loop& loop, Ask ask, std::function<void(NameEvent)> on_event)
    : loop_(loop),
      ask_(std::move(ask)),
      on_event_(std::move(on_event)),
      alive_(std::make_shared<const NameCache*>(this)) {}

NameCache::~NameCache() {
  for (const auto& [name, entry] : entries_) {
    entry->patience.reset();  // whose callback is this object's
  }
}

std::unique_ptr<NameCache::Query> NameCache::Lookup(std::string_view name, Done done) {
  const std::shared_ptr<Entry> entry = FindOrMake(name);
  if (entry == nullptr) {
    done(absl::ResourceExhaustedError("too many names are being resolved"));
    return nullptr;
  }
  const milliseconds now = loop_.Now();
  entry->used = now;
  if (entry->asking == Entry::Asking::kNo && now >= entry->due) {
    StartAsking(entry);
  }
  if (entry->asking == Entry::Asking::kNo) {
    done(AnswerOf(*entry));
    return nullptr;
  }
  std::unique_ptr<Query> query(new Query(std::move(done)));
  query->entry_ = entry;
  entry->waiting.push_back(query.get());
  if (!entry->addresses.empty()) {
    if (!entry->patience.has_value()) {
      entry->patience.emplace(loop_, [this, weak = std::weak_ptr<Entry>(entry)] {
        if (const std::shared_ptr<Entry> impatient = weak.lock(); impatient != nullptr) {
          OnPatienceEnded(impatient);
        }
      });
    }
    if (!entry->patience->IsArmed()) {
      entry->patience->Start(kPatience);
    }
  }
  return query;
}

// With its final dot a name is another one: no search domain is tried.
std::shared_ptr<NameCache::Entry> NameCache::FindOrMake(std::string_view name) {
  const std::string key = base::CanonicalHostName(name) + (name.ends_with('.') ? "." : "");
  if (const auto found = entries_.find(key); found != entries_.end()) {
    return found->second;
  }
  if (entries_.size() >= kMostNames && !MakeRoom()) {
    return nullptr;
  }
  auto entry = std::make_shared<Entry>();
  entry->name = key;
  entries_.emplace(key, entry);
  return entry;
}

bool NameCache::MakeRoom() {
  auto oldest = entries_.end();
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    const bool free = at->second->asking == Entry::Asking::kNo && at->second->waiting.empty();
    if (free && (oldest == entries_.end() || at->second->used < oldest->second->used)) {
      oldest = at;
    }
  }
  if (oldest == entries_.end()) {
    return false;
  }
  entries_.erase(oldest);
  return true;
}

void NameCache::StartAsking(const std::shared_ptr<Entry>& entry) {
  entry->asking = Entry::Asking::kYes;
  ask_(entry->name, [this, weak = std::weak_ptr(alive_), entry](DnsAnswer answer) {
    if (!weak.expired()) {
      OnAnswer(entry, std::move(answer));
    }
  });
}

void NameCache::OnAnswer(const std::shared_ptr<Entry>& entry, DnsAnswer answer) {
  const milliseconds now = loop_.Now();
  entry->asking = Entry::Asking::kNo;
  entry->failure = answer.status;
  if (answer.status.ok()) {
    entry->addresses = std::move(answer.addresses);
    entry->failures = 0;
    entry->due = now + std::clamp<milliseconds>(answer.ttl, kShortestTtl, kLongestTtl);
    Count(NameEvent::kResolved);
  } else if (absl::IsNotFound(answer.status)) {
    entry->addresses.clear();
    entry->failures = 0;
    entry->due = now + kNegativeTtl;
    Count(NameEvent::kNotFound);
  } else {
    constexpr uint32_t kMostDoublings = 5;
    entry->due = now + std::min(kFirstRetry * (1U << std::min(entry->failures, kMostDoublings)),
                                kLongestRetry);
    ++entry->failures;
    Count(NameEvent::kFailed);
  }
  if (!entry->waiting.empty()) {
    Tell(entry, AnswerOf(*entry));
  }
  if (entry->patience.has_value()) {
    entry->patience->Stop();
  }
}

// The question goes on; who waited has the older answer.
void NameCache::OnPatienceEnded(const std::shared_ptr<Entry>& entry) {
  if (entry->asking == Entry::Asking::kYes && !entry->waiting.empty()) {
    Count(NameEvent::kStale);
    Tell(entry, absl::StatusOr<Addresses>(entry->addresses));
  }
}

// Those who are told may cancel others, which takes them out of the list, and may ask again: as
// many are told as there were.
void NameCache::Tell(const std::shared_ptr<Entry>& entry, const absl::StatusOr<Addresses>& answer) {
  for (size_t left = entry->waiting.size(); left > 0 && !entry->waiting.empty(); --left) {
    Query& query = *entry->waiting.front();
    entry->waiting.pop_front();
    query.entry_ = nullptr;
    const Done done = std::move(query.done_);
    done(answer);
  }
}

absl::StatusOr<NameCache::Addresses> NameCache::AnswerOf(const Entry& entry) {
  if (!entry.addresses.empty()) {
    if (!entry.failure.ok()) {
      Count(NameEvent::kStale);
    }
    return entry.addresses;
  }
  return entry.failure;
}

void NameCache::Count(NameEvent event) {
  if (on_event_) {
    on_event_(event);
  }
}

}  // namespace postern::net
