// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/session_table.h"

#include <utility>

#include "common/base/enum_index.h"
#include "proxy/session/session.h"

namespace postern::session {

SessionTable::SessionTable(net::Loop& loop, uint64_t first_id, std::function<void()> on_change)
    : loop_(loop), next_id_(first_id), on_change_(std::move(on_change)) {}

SessionTable::~SessionTable() = default;

Session& SessionTable::Add(std::unique_ptr<Session> session) {
  const uint64_t id = session->id();
  return *(open_[id] = std::move(session));
}

void SessionTable::Remove(const Session& session) {
  const auto found = open_.find(session.id());
  if (found == open_.end()) {
    return;
  }
  dying_.push_back(std::move(found->second));
  open_.erase(found);
  if (dying_.size() == 1) {
    loop_.Defer([this] { dying_.clear(); });
  }
  on_change_();
}

std::vector<uint64_t> SessionTable::Ids() const {
  std::vector<uint64_t> ids;
  ids.reserve(open_.size());
  for (const auto& [id, session] : open_) {
    ids.push_back(id);
  }
  return ids;
}

Session* SessionTable::Find(uint64_t id) {
  const auto found = open_.find(id);
  return found == open_.end() ? nullptr : found->second.get();
}

void SessionTable::HandshakeEnded(base::Direction direction) {
  --handshakes_[base::At(direction)];
  on_change_();
}

void SessionTable::ForEach(const std::function<void(Session&)>& visit) {
  std::vector<Session*> all;
  all.reserve(open_.size());
  for (const auto& [id, session] : open_) {
    all.push_back(session.get());
  }
  // One that is closed meanwhile lives on until the deferred tasks run; it knows that it is closed.
  for (Session* session : all) {
    visit(*session);
  }
}

}  // namespace postern::session
