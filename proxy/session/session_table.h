// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/enum_index.h"
#include "common/base/failure.h"
#include "proxy/net/loop.h"

namespace postern::session {

class Session;

// Owns the sessions of one worker. A session that has closed is taken out at once and destroyed
// after the loop's current callbacks, as it may be on the stack. Worker's thread.
class SessionTable {
 public:
  // `on_change` is called whenever a count went down: a limit may have room again.
  SessionTable(net::Loop& loop, uint64_t first_id, std::function<void()> on_change);
  ~SessionTable();
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  uint64_t NextId() { return next_id_++; }
  Session& Add(std::unique_ptr<Session> session);
  void Remove(const Session& session);

  size_t size() const { return open_.size(); }
  std::vector<uint64_t> Ids() const;
  Session* Find(uint64_t id);  // null: closed meanwhile
  size_t handshakes(base::Direction direction) const { return handshakes_[base::At(direction)]; }
  // A session began, or ended, its way from the accept to the end of the handshake.
  void HandshakeBegan(base::Direction direction) { ++handshakes_[base::At(direction)]; }
  void HandshakeEnded(base::Direction direction);

  // Calls `visit` for every open session, which may close itself or others.
  void ForEach(const std::function<void(Session&)>& visit);

 private:
  net::Loop& loop_;
  uint64_t next_id_;
  std::function<void()> on_change_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Session>> open_;
  std::vector<std::unique_ptr<Session>> dying_;
  std::array<size_t, base::kDirectionCount> handshakes_{};
};

}  // namespace postern::session
