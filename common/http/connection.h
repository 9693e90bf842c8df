// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/unique_fd.h"
#include "common/http/http_server.h"

namespace postern::http {

// One client of a reading port: its request, the page that is being made, the reply, the end. Holds
// a request's head (kMaxRequestHead) or a reply, never both. Each step has a limit in all, not from
// one byte to the next. Owned by the server's thread.
class Connection {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class Phase : uint8_t { kRequest, kPage, kReply, kEnding, kOver };

  Connection(uint64_t id, base::UniqueFd fd, Time now);

  uint64_t id() const { return id_; }
  int fd() const { return fd_.get(); }
  Phase phase() const { return phase_; }
  Time since() const { return since_; }  // in this phase
  Time until() const;  // when this phase must be over; max(): a page is being made

  // Reads what is there. True: there is something to answer, a whole head or one that is too long.
  bool Receive();
  // What was received, whole unless it is empty: then it was too long.
  std::string_view head() const { return head_; }
  void SetHeadOnly(bool head_only) { head_only_ = head_only; }
  void AwaitPage(Time now);
  // Sends what the socket takes, then waits for the client's end.
  void Answer(const Reply& reply, Time now);
  void Send(Time now);
  // Throws away what still comes: a close with unread bytes would reset the connection, and the
  // reply might be lost with it.
  void AwaitEnd();

 private:
  void Enter(Phase phase, Time now);

  const uint64_t id_;
  base::UniqueFd fd_;
  Phase phase_ = Phase::kRequest;
  Time since_;
  bool head_only_ = false;
  std::string head_;
  std::string reply_;
  size_t sent_ = 0;
  size_t thrown_away_ = 0;
};

}  // namespace postern::http
