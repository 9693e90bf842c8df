// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "proxy/net/dns_client.h"
#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::net {

// What came of resolving a name, for the metrics.
enum class NameEvent : uint8_t {
  kResolved,
  kNotFound,  // there is no such name
  kFailed,    // nobody could say
  kStale,     // an older answer was used, because of that or because the new one was late
};

// The addresses of host names, asked for again when their TTL has passed. While that fails the last
// good answer goes on; that a name does not exist is an answer, too. Bounded; what was not used for
// longest goes first. One for each loop; its thread only.
class NameCache {
 public:
  using Ask = std::function<void(const std::string& name, DnsClient::Done done)>;
  using Addresses = std::vector<base::IpAddress>;
  using Done = std::function<void(const absl::StatusOr<Addresses>&)>;

  static constexpr std::chrono::milliseconds kShortestTtl{1000};
  static constexpr std::chrono::milliseconds kLongestTtl{std::chrono::hours(24)};
  static constexpr std::chrono::milliseconds kNegativeTtl{5000};
  // How long a connection waits for a fresh answer where there is an older one (RFC 8767).
  static constexpr std::chrono::milliseconds kPatience{500};
  // After a failure nobody is asked for so long; each further one doubles it.
  static constexpr std::chrono::milliseconds kFirstRetry{1000};
  static constexpr std::chrono::milliseconds kLongestRetry{30000};
  static constexpr size_t kMostNames = 1024;

  // `ask`: who is asked; `on_event` may be null. Both and the loop outlive this.
  NameCache(Loop& loop, Ask ask, std::function<void(NameEvent)> on_event);
  ~NameCache();
  NameCache(const NameCache&) = delete;
  NameCache& operator=(const NameCache&) = delete;

  // Somebody who waits. Destroying it cancels: `done` does not come any more.
  class Query {
   public:
    ~Query();
    Query(const Query&) = delete;
    Query& operator=(const Query&) = delete;

   private:
    friend class NameCache;
    struct Entry;
    explicit Query(Done done) : done_(std::move(done)) {}
    std::shared_ptr<Entry> entry_;  // null: answered
    Done done_;
  };

  // Calls `done` once: inside this call, and then null is returned, or later. Addresses are never
  // empty. NotFound, Unavailable name the host; ResourceExhausted: too many names at once.
  std::unique_ptr<Query> Lookup(std::string_view name, Done done);

  size_t size() const { return entries_.size(); }

 private:
  using Entry = Query::Entry;

  std::shared_ptr<Entry> FindOrMake(std::string_view name);
  bool MakeRoom();
  void StartAsking(const std::shared_ptr<Entry>& entry);
  void OnAnswer(const std::shared_ptr<Entry>& entry, DnsAnswer answer);
  void OnPatienceEnded(const std::shared_ptr<Entry>& entry);
  void Tell(const std::shared_ptr<Entry>& entry, const absl::StatusOr<Addresses>& answer);
  absl::StatusOr<Addresses> AnswerOf(const Entry& entry);
  void Count(NameEvent event);

  Loop& loop_;
  const Ask ask_;
  const std::function<void(NameEvent)> on_event_;
  absl::flat_hash_map<std::string, std::shared_ptr<Entry>> entries_;
  std::shared_ptr<const NameCache*> alive_;  // answers must not find this gone
};

}  // namespace postern::net
