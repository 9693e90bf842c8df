// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/session_cache.h"

#include <openssl/crypto.h>

#include <utility>

namespace postern::tls {

CachedSession::~CachedSession() {
  OPENSSL_cleanse(der.data(), der.size());
}

std::shared_ptr<const CachedSession> SessionCache::Find(std::string_view key, absl::Time now) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    return nullptr;
  }
  const Entries::iterator entry = found->second;
  if (entry->session->until <= now || entry->session->peer.not_before > now) {
    Erase(entry);
    return nullptr;
  }
  recent_.splice(recent_.begin(), recent_, entry);
  return entry->session;
}

void SessionCache::Put(std::string_view key, std::shared_ptr<const CachedSession> session) {
  if (session->der.size() > kMaxSessionBytes || max_sessions_ == 0) {
    return;
  }
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    found->second->session = std::move(session);
    recent_.splice(recent_.begin(), recent_, found->second);
    return;
  }
  if (recent_.size() >= max_sessions_) {
    Erase(std::prev(recent_.end()));
  }
  recent_.push_front({std::string(key), std::move(session)});
  by_key_.emplace(recent_.front().key, recent_.begin());
}

void SessionCache::Forget(std::string_view key, const CachedSession& session) {
  const auto found = by_key_.find(key);
  if (found != by_key_.end() && found->second->session.get() == &session) {
    Erase(found->second);
  }
}

void SessionCache::Erase(Entries::iterator entry) {
  by_key_.erase(entry->key);
  recent_.erase(entry);
}

}  // namespace postern::tls
