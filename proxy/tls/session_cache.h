// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/x509/chain_verifier.h"

namespace postern::tls {

// A session that a client may resume, and whom it was made with. Immutable. `der` holds a secret:
// it is wiped with the object and never formatted.
struct CachedSession {
  CachedSession(std::vector<uint8_t> session, x509::VerifiedPeer verified, absl::Time no_later)
      : der(std::move(session)), peer(std::move(verified)), until(no_later) {}
  ~CachedSession();
  CachedSession(const CachedSession&) = delete;
  CachedSession& operator=(const CachedSession&) = delete;

  std::vector<uint8_t> der;  // an SSL_SESSION without certificates
  x509::VerifiedPeer peer;
  absl::Time until;  // counted from the full handshake; not later than any notAfter
};

// The sessions that one client context may resume, the newest of each key, the least recently used
// one leaving first. One cache belongs to one certificate of our own and one set of bundles: it is
// dropped with the TlsContext. Confined to its worker's thread.
class SessionCache {
 public:
  static constexpr size_t kMaxSessions = 1024;
  static constexpr size_t kMaxSessionBytes = 4096;

  explicit SessionCache(size_t max_sessions = kMaxSessions) : max_sessions_(max_sessions) {}

  // Null when there is none, or none that is still good at `now`. It stays: a ticket may be used by
  // several connections.
  std::shared_ptr<const CachedSession> Find(std::string_view key, absl::Time now);
  // Replaces what is there; a session of more than kMaxSessionBytes is not kept.
  void Put(std::string_view key, std::shared_ptr<const CachedSession> session);
  // Takes this one out, if it is still there: its server does not know it any more.
  void Forget(std::string_view key, const CachedSession& session);

  size_t size() const { return recent_.size(); }

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const CachedSession> session;
  };
  using Entries = std::list<Entry>;
  void Erase(Entries::iterator entry);

  const size_t max_sessions_;
  Entries recent_;  // most recently used first; the nodes own what the keys of by_key_ view
  absl::flat_hash_map<std::string_view, Entries::iterator> by_key_;
};

}  // namespace postern::tls
